"""The same bytes as the real preprocess_data.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3_ops.artifacts import sha256_file
from qwen3_ops.errors import BadInput

DATA = Path(__file__).parents[2] / "data" / "data"
CASES = json.loads((DATA / "cases.json").read_text(encoding="utf-8"))
EDGES = {case["name"]: case for case in json.loads((DATA / "edge_cases.json").read_text(encoding="utf-8"))}

NO_TOKENIZER = [name for name in CASES if name.startswith("qwen3_")]

# Where the real tool ends well and we differ on purpose.
REFUSED = {
    "a_seq_equal": "no record is left",
    "g_allempty": "no record is left",
    "a_dir_mixed": "several formats",
    "a_nohandler": "--handler-name",
}
# Where the real tool crashes or never ends, and what we write instead: (written, dropped).
SAVED = {
    "a_mixed_types": (1, 1),
    "a_badline": (2, 1),
    "a_dates": (2, 0),
    "a_dates_input": (2, 0),
    "a_csv_digits": (2, 0),
    "a_csv_intinstr": (2, 0),
    "a_nsubs_gt": (2, 0),
    "a_extra_cols_2files": (2, 0),
    "s_empty_conv": (1, 1),
    "s_null_conv": (1, 1),
    "s_dates": (1, 0),
    "o_nosys_rolenull": (1, 1),
    "g_null": (1, 1),
    "pack_length_equals_seq_length": (3, 0),
    "neat_pack_append_eod": (2, 0),
}


@pytest.mark.parametrize("name", sorted(set(CASES) - set(NO_TOKENIZER)))
def test_case_is_byte_identical(name, preprocess):
    case = CASES[name]
    run = preprocess([str(DATA / flag) if flag.startswith(("inputs/", "tok512")) else flag for flag in case["flags"]])
    made = {path.name: sha256_file(path) for path in run.folder.iterdir() if path.suffix in (".bin", ".idx")}
    assert made == {file: entry["sha256"] for file, entry in case["files"].items()}
    assert run.outcome.metrics["sequences"] == case["sequences"]


def _edge(name, preprocess, tmp_path):
    case = EDGES[name]
    for file, content in case["files"].items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")
    flags = [*case["flags"]]
    if "--output-prefix" in flags:
        del flags[flags.index("--output-prefix") : flags.index("--output-prefix") + 2]
    return preprocess(["--input", str(tmp_path / case["input"]), *flags])


@pytest.mark.parametrize("name", [name for name, case in EDGES.items() if case["exit"] == 0 and name not in REFUSED])
def test_edge_gives_the_same_sequences(name, preprocess, tmp_path):
    run = _edge(name, preprocess, tmp_path)
    for output, wanted in EDGES[name]["outputs"].items():
        made = run.read(output.removesuffix("_document").removeprefix("z_"))
        assert [sequence.tolist() for sequence in made] == wanted["sequences"]
        assert made.document_indices.tolist() == wanted["document_indices"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_edge_that_is_refused_on_purpose(name, preprocess, tmp_path):
    with pytest.raises(BadInput, match=REFUSED[name]):
        _edge(name, preprocess, tmp_path)


@pytest.mark.parametrize("name", sorted(SAVED))
def test_edge_that_crashes_the_real_tool_and_not_us(name, preprocess, tmp_path):
    metrics = _edge(name, preprocess, tmp_path).outcome.metrics
    assert (metrics["written"], metrics["dropped"]) == SAVED[name]


@pytest.mark.parametrize("name", [name for name, case in EDGES.items() if case["exit"] != 0 and name not in SAVED])
def test_edge_that_fails_is_bad_input_and_leaves_nothing(name, preprocess, tmp_path):
    with pytest.raises(BadInput):
        _edge(name, preprocess, tmp_path)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
