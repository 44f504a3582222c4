"""Lines of the real tool (tests/data/mindspeed, as printed) and lines that no one ever printed."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser
from qwen3_ops.mindspeed.log_events import (
    Answer,
    Iteration,
    Loaded,
    Loading,
    Memory,
    RankParameters,
    Saved,
    Saving,
    Sign,
    Subject,
    Trainable,
    Validation,
    World,
)
from qwen3_ops.mindspeed.log_lines import parse_line
from qwen3_ops.mindspeed.texts import TextReader

PRINTED = (
    " [2025-07-12 10:22:33] iteration      120/    2000 | consumed samples:         7680 | elapsed time per iteration (ms): 9120.4 | "
    "throughput per GPU (TFLOP/s/GPU): 143.2 | learning rate: 1.249000E-05 | global batch size:    64 | lm loss: 1.234500E+00 | "
    "loss scale: 1.0 | grad norm: 0.810 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)


def cases(golden):
    return sorted((golden / "mindspeed").glob("*.txt"))


def test_every_line_of_the_real_tool_says_something(golden):
    silent = [line for path in cases(golden) for line in path.read_text().splitlines() if not parse_line(line)]
    assert silent == []
    assert len(cases(golden)) == 22


def test_nothing_of_a_line_is_lost(golden):
    """What was parsed, printed again, is the line."""
    seen = set()
    for path in cases(golden):
        for line in path.read_text().splitlines():
            (event,) = parse_line(line)
            seen.add(type(event))
            assert printed(event, line) == line.rstrip(), path
    assert {Iteration, World, Loading, Loaded, Saving, Saved, Validation, Trainable, RankParameters, Sign} <= seen


def printed(event, line):
    match event:
        case Iteration():
            parts = [
                f" [{event.printed_at}] iteration {event.iteration:8d}/{event.train_iters:8d} |",
                f" consumed samples: {event.consumed_samples:12d} |",
                f" elapsed time per iteration (ms): {event.seconds * 1000:.1f} |",
                f" learning rate: {event.learning_rate:.6E} |",
                f" global batch size: {event.batch_size:5d} |",
                *(f" {name}: {value:.6E} |" for name, value in event.losses.items()),
                f" loss scale: {event.loss_scale:.1f} |",
                f" grad norm: {event.grad_norm:.3f} |",
                f" number of skipped iterations: {event.skipped:3d} |",
                f" number of nan iterations: {event.nans:3d} |",
            ]
            return "".join(parts)
        case World():
            return (
                f"using world size: {event.world_size}, data-parallel size: {event.data_parallel}, context-parallel size: "
                f"{event.context_parallel} tensor-model-parallel size: {event.tensor_parallel}, pipeline-model-parallel size: {event.pipeline_parallel}"
            )
        case Loading():
            return f" loading checkpoint from {event.folder} at iteration {event.iteration}"
        case Loaded():
            return f"  successfully loaded checkpoint from {event.folder} [ t {event.tensor_rank}, p {event.pipeline_rank} ] at iteration {event.iteration}"
        case Saving():
            return f"saving checkpoint at iteration {event.iteration:7d} to {event.folder} in torch format"
        case Saved():
            return f"  successfully saved checkpoint from iteration {event.iteration:7d} to {event.folder}"
        case Validation():
            part = f" on {event.part} set" if event.part else ""
            return f" validation loss at iteration {event.iteration}{part} | lm loss value: {event.loss:.6E} | lm loss PPL: {event.perplexity:.6E} |"
        case Trainable():
            return f"trainable params: {event.trainable:,} || all params: {event.total:,} || trainable%: {event.percent}"
        case RankParameters():
            return f" > number of parameters on (tensor, pipeline) model parallel rank ({event.tensor_rank}, {event.pipeline_rank}): {event.parameters}"
        case Sign():
            return line.rstrip()  # a line without values
        case _:
            return f"Total number of parameters in billions: {event.parameters:.2f}"


def test_throughput_and_times():
    (event,) = parse_line(PRINTED)
    assert (event.teraflops, event.seconds, event.lm_loss, event.learning_rate) == (143.2, 9.1204, 1.2345, 1.249e-05)
    assert datetime.fromisoformat(event.printed_at) == datetime(2025, 7, 12, 10, 22, 33)


def test_a_lost_loss_and_more_losses():
    (event,) = parse_line(PRINTED.replace(" lm loss: 1.234500E+00 |", "").replace("nan iterations:   0", "nan iterations:   1"))
    assert (event.lm_loss, event.nans) == (None, 1)
    (event,) = parse_line(
        PRINTED.replace("| loss scale", "| load_balancing_loss: 1.5E-02 | loss scale").replace("norm: 0.810", "norm: nan")
    )
    assert event.losses == {"lm loss": 1.2345, "load_balancing_loss": 0.015}
    assert event.grad_norm != event.grad_norm


def test_two_lines_in_one_and_a_prefix():
    assert [event.iteration for event in parse_line(PRINTED + PRINTED.replace("120/", "121/"))] == [120, 121]
    assert [event.iteration for event in parse_line("[default7]:" + PRINTED)] == [120]
    both = parse_line("  successfully saved checkpoint from iteration     200 to /out")
    assert both == [Saved(200, "/out")]


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "[Rank 3] (after 1 iterations) memory (MB) | allocated: 4000.5 | max allocated: 5000.0 | reserved: 6000.0 | max reserved: 6001.0",
            Memory(3, 1, 4000.5, 5000.0, 6000.0, 6001.0),
        ),
        ("INFO:root:correct: B, AI: C, rank: 0", Answer("B", "C", 0)),
        ("INFO:root:xx. AI answer: hm", Answer(None, None, 0)),
        ("INFO:root:anatomy has 3 corrects in 10 questions, with accuracy 0.3", Subject("anatomy", 3, 10)),
        ("[after training is done] datetime: 2026-11-24 03:18:00 ", Sign("training done")),
        ("exiting program after receiving SIGTERM.", Sign("stopped by SIGTERM")),
        ("exiting program at iteration 20", Sign("stopped by an exit flag")),
    ],
)
def test_other_lines(line, event):
    assert parse_line(line) == [event]


@given(st.text())
def test_no_text_can_crash_it(line):
    parse_line(line)
    Diagnoser().feed(line)
    TextReader().feed(line)


PIECES = st.sampled_from(
    [
        *PRINTED.split(" "),
        "|",
        "nan",
        "1" * 5000,
        "-inf",
        "[Rank",
        "memory (MB)",
        "correct: ",
        ", AI: ",
        ", rank: ",
        "trainable params: ,,",
        "\x00",
        "Processed ",
        " documents",
        "mmlu acc = ",
        "1/0=",
        "EI0006",
        "Traceback (most recent call last):",
        "NPU out of memory. 1 GiB free",
        "[rank9",
    ]
)


@given(st.lists(PIECES, max_size=60).map(" ".join))
def test_no_torn_line_can_crash_it(line):
    parse_line(line)
    diagnoser = Diagnoser()
    diagnoser.feed(line)
    diagnoser.conclude()


def test_generated_text_of_the_real_tool(golden):
    reader = TextReader()
    for line in (golden / "train" / "infer" / "stderr_of_inference.txt").read_text().splitlines():
        reader.feed(line)
    (text,) = reader.end()
    assert (text.task, text.prompt, text.text) == ("greedy", "how are you?", "\nA. lad\nAnswer: B\nWhat is 2 + 4?\nA. ")
    assert reader.seconds == 0.07
