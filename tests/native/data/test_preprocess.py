"""The verb: flags, ledger, bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qwen3_ops.artifacts import writing
from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.writer import IndexedDatasetWriter

ALPACA = ["--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]
PRETRAIN = ["--handler-name", "GeneralPretrainHandler"]


def dropped(run):
    return {reason: (tally["count"], tally["rows"]) for reason, tally in run.ledger()["dropped_by_reason"].items()}


@pytest.mark.parametrize("name", ["03_data_alpaca", "04_data_sharegpt", "05_data_openai", "16_data_pretrain_enwiki"])
def test_the_runbooks_commands_are_understood(golden, name):
    argv = json.loads((golden / "commands" / f"{name}.json").read_text())["argv"]
    flags, inert = FLAGS.parse(argv[2:])
    assert str(flags.tokenizer_name_or_path) == "/apps/hw/weights/Qwen3-14B"
    assert inert == ["--log-interval"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--handler-name", "NoSuchHandler"], "--handler-name"),
        ([*ALPACA[:3], "minicpm3"], "--prompt-type: unknown prompt type"),
        (ALPACA[:2], "--prompt-type: required"),
        ([*PRETRAIN, "--prompt-type", "qwen"], "do not go with GeneralPretrainHandler"),
        ([*ALPACA, "--map-keys", "{"], "--map-keys: not JSON"),
        ([*ALPACA, "--map-keys", '{"sytem": "s"}'], "unknown key 'sytem'"),
        ([*ALPACA, "--map-keys", '{"tags": {}}'], "unknown key 'tags'"),
        ([*ALPACA, "--pad-to-multiple-of", "8"], "goes with GeneralPretrainHandler only"),
        ([*ALPACA, "--streaming"], "always streamed"),
        ([*ALPACA, "--tokenizer-type", "Llama2Tokenizer"], "--tokenizer-type"),
        ([*ALPACA, "--pack"], "--pack: needs --seq-length"),
        ([*PRETRAIN, "--pack", "--seq-length", "8"], "instruction data only"),
        ([*ALPACA, "--neat-pack", "--seq-length", "8"], "--neat-pack: needs --pack"),
        ([*ALPACA, "--merge-group-keys", "a"], "qwen3-ops merge-data"),
        ([*PRETRAIN, "--json-keys", "text", "text"], "named twice"),
        ([*ALPACA, "--seq-length", "0"], "--seq-length"),
    ],
)
def test_flags_refused(argv, message):
    with pytest.raises(BadInput, match=message):
        FLAGS.parse(["--input", "i", "--tokenizer-name-or-path", "t", "--output-prefix", "o", *argv])


def test_ledger_names_what_became_of_each_record(preprocess, write, capsys):
    lines = [{"instruction": "i", "input": "", "output": "o", "system": "s"}, None, {"instruction": 5, "input": "", "output": "o"}]
    lines += [{"instruction": "i", "input": "", "output": None}] * 7 + [{"instruction": "long " * 50, "input": "", "output": "o"}]
    text = "\n".join("{broken" if line is None else json.dumps(line) for line in lines)
    run = preprocess(["--input", str(write("a.jsonl", text)), *ALPACA, "--seq-length", "100"])
    ledger = run.ledger()
    wanted = {"records": 11, "written": 1, "dropped": 10, "truncated": 0, "sequences": 1, "tokens": 44, "trainable_tokens": 2}
    assert run.outcome.metrics == wanted
    assert {name: ledger[name] for name in wanted} == wanted
    assert dropped(run) == {
        "not readable as a record": (1, [1]),
        "the instruction or its input is not text": (1, [2]),
        "no answer": (7, [3, 4, 5, 6, 7]),
        "100 tokens or more": (1, [10]),
    }
    assert [reason for reason, tally in ledger["dropped_by_reason"].items() if tally["asked_for"]] == ["100 tokens or more"]
    assert ledger["dropped_by_reason"]["not readable as a record"]["examples"] == ["{broken"]
    assert ledger["dropped_by_reason"]["no answer"]["examples"] == ['{"instruction": "i", "input": "", "output": null}'] * 5
    assert ledger["warnings"][0] == "the column system is not read: name it in --map-keys if it is meant"
    assert (ledger["lengths"], ledger["longest"]) == ({"64": 1}, 44)
    assert (ledger["prompt_type"], ledger["files"]) == ("qwen", ["a.jsonl"])
    assert run.outcome.facts["tokenizer_sha256"] == ledger["tokenizer_sha256"]
    assert run.outcome.facts["output_prefix"] == "d"
    said = capsys.readouterr()
    assert "dropped: no answer: 7" in said.out
    assert "up to        64 tokens" in said.out


def test_one_record_is_shown_with_its_loss_mask(preprocess, write, capsys):
    lines = [{"instruction": "no answer", "input": "", "output": None}, {"instruction": "one?", "input": "", "output": "yes"}]
    run = preprocess(["--input", str(write("a.jsonl", "\n".join(map(json.dumps, lines)))), *ALPACA])
    example = run.ledger()["example"]
    prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n"
    assert example["row"] == 1
    assert example["parts"] == [{"trained": False, "text": prompt}, {"trained": True, "text": "yes<|im_end|>"}]
    assert example["text"] == f"{prompt}⟦yes<|im_end|>⟧"
    assert example["text"] in capsys.readouterr().out


@pytest.mark.parametrize("flags", [ALPACA, [*PRETRAIN, "--json-keys", "output"]])
def test_half_a_character_drops_its_record_only(preprocess, write, flags):
    line = '{"instruction": "i", "input": "", "output": "%s"}'
    run = preprocess(["--input", str(write("a.jsonl", line % "\\ud800" + "\n" + line % "ok")), *flags])
    assert dropped(run) == {"text is not valid Unicode": (1, [0])}
    assert run.outcome.metrics["written"] == 1


def test_rows_count_through_all_files_in_their_order(preprocess, write, tmp_path):
    write("data/b.txt", "three\n\nfive\n")
    write("data/a.txt", "one\n\n")
    run = preprocess(["--input", str(tmp_path / "data"), *PRETRAIN])
    assert dropped(run) == {"empty text": (2, [1, 3])}
    assert run.ledger()["files"] == ["a.txt", "b.txt"]


def test_a_record_too_long_in_one_column_is_dropped_from_all(preprocess, write):
    lines = [{"text": "", "title": "a"}, {"text": "b" * 90, "title": "b"}, {"text": "c", "title": "c"}]
    path = write("a.jsonl", "\n".join(map(json.dumps, lines)))
    run = preprocess(["--input", str(path), *PRETRAIN, "--json-keys", "text", "title", "--seq-length", "8"])
    assert (len(run.read("text")), len(run.read("title"))) == (1, 2)
    assert dropped(run) == {"8 tokens or more": (1, [1])}
    assert "mixes records up" in run.ledger()["warnings"][0]


def test_packing_says_what_it_dropped_or_cut_and_leaves_no_scratch(preprocess, golden, tmp_path):
    argv = ["--input", str(golden / "data" / "inputs" / "alpaca.parquet"), *ALPACA, "--pack", "--seq-length", "512"]
    packed = preprocess(argv)
    assert packed.ledger()["dropped_by_reason"]["more than 512 tokens"]["count"] > 0
    assert set(packed.read("packed_input_ids").sequence_lengths.tolist()) == {512}
    neat = preprocess([*argv, "--neat-pack"])
    assert neat.ledger()["notes"]["cut to fit into --seq-length"]["count"] > 0
    assert neat.outcome.metrics["written"] > packed.outcome.metrics["written"]
    trained = sum(int((labels != -100).sum()) for labels in neat.read("packed_labels"))
    assert trained == neat.outcome.metrics["trainable_tokens"]
    assert len(list((tmp_path / "out").iterdir())) == 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"instruction": "i", "output": "o"}', "no such column: input; there are: instruction, output"),
        ("a.csv", "instruction,answer\ni,o\n", "no such column: input, output"),
        ("a.jsonl", "{", "no record is left"),
        ("a.jsonl", b'{"instruction": "\xff"}', "not valid UTF-8"),
        ("a.parquet", b"PAR1", "can not be read"),
    ],
)
def test_bad_input_leaves_nothing(preprocess, write, tmp_path, name, content, message):
    with pytest.raises(BadInput, match=message):
        preprocess(["--input", str(write(name, content)), *ALPACA])
    assert not list((tmp_path / "out").iterdir())


def test_missing_input_and_tokenizer(preprocess, write, tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        preprocess(["--input", str(tmp_path / "x.jsonl"), *ALPACA])
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        preprocess(["--input", str(write("a.jsonl", "{}")), *ALPACA, "--tokenizer-name-or-path", str(tmp_path)])


@pytest.mark.parametrize(
    ("method", "more"),
    [("add_block", []), ("add_block", ["--pack", "--seq-length", "512"]), ("add_document", ["--pack", "--seq-length", "512"])],
)
def test_disk_full_in_the_middle(preprocess, golden, tmp_path, monkeypatch, method, more):
    write = getattr(IndexedDatasetWriter, method)

    def full(self, *given):
        write(self, *given)
        if self.sequences > 50:
            with writing(self.prefix):
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexedDatasetWriter, method, full)
    with pytest.raises(Infrastructure, match="the disk is full"):
        preprocess(["--input", str(golden / "data" / "inputs" / "alpaca.parquet"), *ALPACA, *more])
    assert not list((tmp_path / "out").iterdir())


def test_output_that_can_not_be_written(golden, tmp_path, preprocess):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(BadInput, match="can not be written"):
        preprocess(["--input", str(golden / "data" / "inputs" / "alpaca.parquet"), *ALPACA])


PEAK = """
import resource, sys
from pathlib import Path
from qwen3_ops.events import Events
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.verb import run
from qwen3_ops.verbs import Context
run(FLAGS.parse(sys.argv[1:])[0], Context(events=Events()))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(write, tmp_path, tokenizer_dir):
    def peak(records: int) -> int:
        line = json.dumps({"instruction": "i" * 300, "input": "", "output": "o" * 700}) + "\n"
        path = write(f"{records}.jsonl", line * records)
        prefix = tmp_path / f"o{records}" / "d"
        argv = ["--input", str(path), "--tokenizer-name-or-path", str(tokenizer_dir), "--output-prefix", str(prefix)]
        done = subprocess.run([sys.executable, "-c", PEAK, *argv, *ALPACA], check=True, capture_output=True, text=True)
        return int(done.stdout.split()[-1])

    assert peak(6_000) < 1.1 * peak(1_500)


def test_a_message_without_a_role_is_of_the_last_kind_that_has_no_name(preprocess, write):
    """The original's rule where tags leave a name out; where that is the system's, it crashes."""
    messages = [{"role": "user", "content": "q"}, {"role": None, "content": "r"}]
    path = write("a.jsonl", json.dumps({"messages": messages}))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}

    def run(**more):
        keys = json.dumps({"messages": "messages", "tags": {**tags, **more}})
        argv = ["--input", str(path), "--handler-name", "SharegptStyleInstructionHandler", "--prompt-type", "qwen", "--map-keys", keys]
        return preprocess(argv).ledger()

    ledger = run(system_tag="system")
    assert list(ledger["notes"]) == [
        "a message without a role: taken as function",
        "function call without name and arguments: written empty",
    ]
    with pytest.raises(BadInput, match="no record is left"):
        run()
