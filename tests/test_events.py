from __future__ import annotations

from qwen3_ops.events import Events, format_seconds, read_events


def test_events_are_json_lines_and_an_unfinished_last_line_is_left_out(tmp_path):
    path = tmp_path / "run" / "events.jsonl"
    events = Events(path)
    events.log("hello", level="warning", reused=True)
    events.metric(step=3, loss=1.5)
    events.close()
    with path.open("a") as file:
        file.write('{"event": "pro')
    first, second = read_events(path)
    assert (first["event"], first["message"], first["level"], first["reused"]) == ("log", "hello", "warning", True)
    assert (second["event"], second["step"], second["loss"]) == ("metric", 3, 1.5)
    assert list(read_events(tmp_path / "none")) == []


def test_progress_counts_what_a_resumed_stage_need_not_repeat(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    with events.progress("train", total=10, unit="it", done=4) as bar:
        for _ in range(6):
            bar.advance(loss=1.0)
    *_, last = read_events(tmp_path / "events.jsonl")
    assert (last["done"], last["total"], last["eta_seconds"]) == (10, 10, 0.0)


def test_seconds_read_well():
    assert [format_seconds(seconds) for seconds in (5, 75, 3700)] == ["5 s", "1 min 15 s", "1 h 01 min"]


def test_a_start_that_was_killed_in_the_middle_of_a_line_costs_that_line_only(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "log", "message": "\xe4\xbd')
    events = Events(path)
    events.log("again")
    events.close()
    assert [event["message"] for event in read_events(path)] == ["again"]
