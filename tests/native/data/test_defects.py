"""The real tool's defects that lose data, crash or never end, and what we do instead; one test each."""

from __future__ import annotations

import json

import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.tokenizer import Tokenizer

ALPACA = ["--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]
SHAREGPT = ["--handler-name", "SharegptStyleInstructionHandler", "--prompt-type", "qwen"]
PRETRAIN = ["--handler-name", "GeneralPretrainHandler"]


def jsonl(*records):
    return "\n".join(json.dumps(record) for record in records)


def alpaca(output="o", **more):
    return {"instruction": "i", "input": "", "output": output, **more}


def test_packing_a_record_of_exactly_the_sequences_length_ends(preprocess, write):
    path = write("a.jsonl", jsonl(alpaca(), alpaca("longer answer")))
    length = len(preprocess(["--input", str(path), *ALPACA]).read("packed_input_ids")[1])
    run = preprocess(["--input", str(path), *ALPACA, "--pack", "--seq-length", str(length)])
    assert run.outcome.metrics["written"] == 2
    assert len(run.read("packed_input_ids")) == 2


def test_neat_packing_of_a_cut_record_with_an_end_token_ends(preprocess, write):
    path = write("a.jsonl", jsonl(alpaca("word " * 100)))
    run = preprocess(["--input", str(path), *ALPACA, "--pack", "--neat-pack", "--append-eod", "--seq-length", "64"])
    assert run.outcome.metrics["truncated"] == 1
    assert run.read("packed_input_ids").sequence_lengths.tolist() == [64]


@pytest.mark.parametrize("column", ["system", "history"])
def test_a_column_that_is_there_but_not_mapped_is_told(preprocess, write, column):
    run = preprocess(["--input", str(write("a.jsonl", jsonl(alpaca(**{column: "s"})))), *ALPACA])
    assert run.ledger()["warnings"] == [f"the column {column} is not read: name it in --map-keys if it is meant"]


def test_tools_that_are_there_but_not_mapped_are_told(preprocess, write):
    record = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": "[]"}
    run = preprocess(["--input", str(write("a.jsonl", jsonl(record))), *SHAREGPT])
    assert "the column tools is not read" in run.ledger()["warnings"][0]


def test_tags_that_leave_out_a_needed_one_are_refused(preprocess, write):
    with pytest.raises(BadInput, match="role_tag is missing"):
        preprocess(["--input", str(write("a.jsonl", "{}")), *SHAREGPT, "--map-keys", '{"tags": {"user_tag": "u"}}'])


def test_files_of_a_folder_are_read_in_sorted_order_and_recorded(preprocess, write, tmp_path, tokenizer_dir):
    for name in ("f3", "f1", "f2"):
        write(f"data/{name}.jsonl", jsonl(alpaca(name)))
    run = preprocess(["--input", str(tmp_path / "data"), *ALPACA])
    tokenizer = Tokenizer(tokenizer_dir)
    texts = [tokenizer.decode(sequence.tolist()) for sequence in run.read("packed_input_ids")]
    assert [text[-2:] for text in texts] == ["f1", "f2", "f3"]
    assert run.ledger()["files"] == ["f1.jsonl", "f2.jsonl", "f3.jsonl"]


def test_a_folder_of_several_formats_is_refused_not_half_read(preprocess, write, tmp_path):
    write("data/a.jsonl", jsonl(alpaca()))
    write("data/b.csv", "instruction,input,output\ni,,o\n")
    with pytest.raises(BadInput, match="several formats"):
        preprocess(["--input", str(tmp_path / "data"), *ALPACA])


@pytest.mark.parametrize("subs", ["1", "3", "50"])
def test_n_subs_goes_with_any_prefix_and_any_number_of_rows(preprocess, write, subs):
    # The prefix's name also stands in a folder's name here: out/d below a folder with a d in it.
    run = preprocess(["--input", str(write("d/d.jsonl", jsonl(*[alpaca(str(n)) for n in range(7)]))), *ALPACA, "--n-subs", subs])
    assert run.outcome.metrics["written"] == 7


def test_text_that_looks_like_a_date_stays_text(preprocess, write):
    run = preprocess(["--input", str(write("a.jsonl", jsonl(alpaca("2024-01-01"), alpaca("2024-01-02")))), *ALPACA])
    assert run.outcome.metrics["written"] == 2
    assert "2024-01-01" in run.ledger()["example"]["text"]


def test_csv_digits_stay_text(preprocess, write):
    run = preprocess(["--input", str(write("a.csv", "instruction,input,output\n1,,007\n2,,8\n")), *ALPACA])
    assert run.outcome.metrics["written"] == 2
    assert "007" in run.ledger()["example"]["text"]


def test_one_broken_line_is_counted_and_does_not_lose_the_run(preprocess, write):
    run = preprocess(["--input", str(write("a.jsonl", jsonl(alpaca()) + "\n{broken\n" + jsonl(alpaca()))), *ALPACA])
    assert run.outcome.metrics["written"] == 2
    assert run.ledger()["dropped_by_reason"]["not readable as a record"]["rows"] == [1]


def test_nothing_left_is_an_error_that_says_why(preprocess, write, capsys):
    with pytest.raises(BadInput, match="no record is left: 0 of 1"):
        preprocess(["--input", str(write("a.jsonl", jsonl(alpaca(None)))), *ALPACA])
    assert "dropped: no answer: 1" in capsys.readouterr().out


def test_an_unknown_handler_is_refused_not_taken_for_pre_training(preprocess, write):
    with pytest.raises(BadInput, match="--handler-name"):
        preprocess(["--input", str(write("a.jsonl", "{}")), "--handler-name", "AlpacaHandler", "--prompt-type", "qwen"])


def test_files_with_different_columns_are_read(preprocess, write, tmp_path):
    write("data/a.jsonl", jsonl(alpaca(extra=1)))
    write("data/b.jsonl", jsonl(alpaca(other="x")))
    assert preprocess(["--input", str(tmp_path / "data"), *ALPACA]).outcome.metrics["written"] == 2


def test_several_answers_in_a_list_keep_the_originals_bytes_and_are_told(preprocess, write):
    run = preprocess(["--input", str(write("a.jsonl", jsonl(alpaca(["one", "two"])))), *ALPACA])
    assert run.ledger()["notes"]["more than one answer in a list: written as one empty turn"]["rows"] == [0]


def test_tools_that_can_not_be_told_are_left_out_and_noted(preprocess, write):
    record = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": "no json"}
    run = preprocess(["--input", str(write("a.jsonl", jsonl(record))), *SHAREGPT, "--map-keys", '{"tools": "tools"}'])
    assert next(iter(run.ledger()["notes"])).startswith("tools left out")


def test_texts_too_long_are_dropped_by_record_not_by_position(preprocess, write):
    records = [{"text": "", "title": "a"}, {"text": "b" * 90, "title": "b"}, {"text": "c", "title": "c"}]
    argv = ["--input", str(write("a.jsonl", jsonl(*records))), *PRETRAIN, "--json-keys", "text", "title", "--seq-length", "8"]
    run = preprocess(argv)
    assert (len(run.read("text")), len(run.read("title"))) == (1, 2)
    assert "mixes records up" in run.ledger()["warnings"][0]
