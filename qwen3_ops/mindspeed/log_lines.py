"""What MindSpeed-LLM 2.1.0 prints, as values.

Every process of a run writes into one stream, so a line may bear a prefix (``[default7]:``), or two
lines may be stuck together: everything is searched for, nothing is expected at the start of a line.
No line can make the parser fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from qwen3_ops.mindspeed.log_events import (
    Accuracy,
    Answer,
    Billions,
    Documents,
    Event,
    Iteration,
    Layer,
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

_REST = 40  # characters beside a match that can not hold another: a prefix, a bar
_LONGEST = 8192  # characters of a line that are looked at; what MindSpeed-LLM prints is far shorter

_INT = r"(\d{1,18})"
_FLOAT = r"([-+]?(?:\d{1,40}(?:\.\d{0,40})?(?:[eE][-+]?\d{1,4})?|nan|inf))"
_PATH = r"(\S.*?)"


class _Row(NamedTuple):
    needle: str
    pattern: re.Pattern[str]
    build: Callable[[re.Match[str]], Event]


def _row(needle: str, pattern: str, build: Callable[[re.Match[str]], Event]) -> _Row:
    return _Row(needle, re.compile(pattern), build)


def _sign(name: str, needle: str) -> _Row:
    return _row(needle, re.escape(needle), lambda match: Sign(name))


_VALUE = r"([^ |]{1,40})"
_LOSS = re.compile(rf" ([^:|]+): *{_VALUE} \|")
_ITERATION = (
    rf"iteration +{_INT}/ *{_INT} \| consumed samples: +{_INT} \| elapsed time per iteration \(ms\): {_VALUE} \|"
    rf"(?: throughput per GPU \(TFLOP/s/GPU\): {_VALUE} \|)? learning rate: {_VALUE} \|(?: decoupled learning rate: [^ |]+ \|)?"
    rf" global batch size: +{_INT} \|(?: lm loss: {_VALUE} \|)?([^\[]*?) loss scale: {_VALUE} \|(?: grad norm: {_VALUE} \|)?[^\[]*?"
    rf" number of skipped iterations: +{_INT} \| number of nan iterations: +{_INT}"
)


def _iteration(match: re.Match[str]) -> Iteration:
    iteration, iters, samples, milliseconds, teraflops, rate, batch, loss, others, scale, norm, skipped, nans = match.groups()
    iteration, iters, samples, batch, skipped, nans = map(int, (iteration, iters, samples, batch, skipped, nans))
    milliseconds, rate, loss, scale, norm = _numbers((milliseconds, rate, loss, scale, norm))
    losses = {} if loss is None else {"lm loss": loss}
    if others:
        losses |= {name: value for name, text in _LOSS.findall(others) if (value := _number(text)) is not None}
    start = match.start()
    return Iteration(
        match.string[max(0, start - 21) : start].strip(" []"),
        iteration,
        iters,
        samples,
        (milliseconds or 0.0) / 1000,
        None if teraflops is None else _number(teraflops),
        rate,
        batch,
        losses,
        scale,
        norm,
        skipped,
        nans,
    )


def _numbers(texts: Sequence[str | None]) -> list[float | None]:
    """None for what is not there or is no number."""
    try:
        return list(map(float, texts))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return [None if text is None else _number(text) for text in texts]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_GROUPS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        " iteration",
        (
            _row(
                "elapsed time per iteration",
                _ITERATION,
                _iteration,
            ),
            _row(
                "validation loss at",
                rf"validation loss at iteration {_INT}(?: on (\w+) set)? \| lm loss value: {_FLOAT} \| lm loss PPL: {_FLOAT}",
                lambda match: Validation(int(match[1]), match[2], float(match[3]), float(match[4])),
            ),
            _row(
                "memory (MB)",
                rf"\[Rank {_INT}\] \(after {_INT} iterations\) memory \(MB\) \| allocated: {_FLOAT} \| max allocated: {_FLOAT}"
                rf" \| reserved: {_FLOAT} \| max reserved: {_FLOAT}",
                lambda match: Memory(int(match[1]), int(match[2]), *map(float, match.groups()[2:])),
            ),
        ),
    ),
    (
        "checkpoint ",
        (
            _row("loading ", rf" loading checkpoint from {_PATH} at iteration {_INT}", lambda match: Loading(match[1], int(match[2]))),
            _row(
                "successfully loaded",
                rf"successfully loaded checkpoint from {_PATH} \[ t {_INT}, p {_INT} \] at iteration {_INT}",
                lambda match: Loaded(match[1], int(match[2]), int(match[3]), int(match[4])),
            ),
            _row(
                "saving ",
                rf"saving checkpoint at iteration +{_INT} to {_PATH} in \w+ format",
                lambda match: Saving(int(match[1]), match[2]),
            ),
            _row(
                "successfully saved",
                rf"successfully saved checkpoint from iteration +{_INT} to {_PATH} *$",
                lambda match: Saved(int(match[1]), match[2]),
            ),
            _sign("no arguments in the checkpoint", "could not find arguments in the checkpoint"),
            _sign("checkpoint version", "checkpoint version "),
        ),
    ),
    (
        "param",
        (
            _row(
                "trainable params:",
                rf"trainable params: ([\d,]{{1,24}}) \|\| all params: ([\d,]{{1,24}}) \|\| trainable%: {_FLOAT}",
                lambda match: Trainable(_grouped(match[1]), _grouped(match[2]), float(match[3])),
            ),
            _row(
                "number of parameters on",
                rf"number of parameters on \(tensor, pipeline\) model parallel rank \({_INT}, {_INT}\): {_INT}",
                lambda match: RankParameters(*map(int, match.groups())),
            ),
            _row("number of parameters in", rf"number of parameters in billions: {_FLOAT}", lambda match: Billions(float(match[1]))),
        ),
    ),
    (
        "correct",
        (
            _row(
                " corrects in ",
                rf"(\w+) has {_INT} corrects in {_INT} questions, with accuracy",
                lambda match: Subject(match[1], int(match[2]), int(match[3])),
            ),
            _row(
                "correct: ",
                rf"\bcorrect: (.{{0,200}}?), AI: (.{{0,2000}}?), rank: {_INT}",
                lambda match: Answer(match[1], match[2], int(match[3])),
            ),
        ),
    ),
    ("AI answer: ", (_row("xx. AI answer: ", r"xx\. AI answer: ", lambda match: Answer(None, None, 0)),)),
    (
        "size: ",
        (
            _row(
                "using world size:",
                rf"using world size: {_INT}, data-parallel size: {_INT}, context-parallel size: {_INT},? "
                rf"tensor-model-parallel size: {_INT}, (?:encoder-tensor-model-parallel size: \d+, )?pipeline-model-parallel size: {_INT}",
                lambda match: World(*map(int, match.groups())),
            ),
        ),
    ),
    (
        "transformer layer ",
        (_row("transformer layer ", rf"(?:sending|received|receiving) transformer layer {_INT}", lambda match: Layer(int(match[1]))),),
    ),
    (" documents", (_row("Processed ", rf"Processed {_INT} documents", lambda match: Documents(int(match[1]), None)),)),
    ("Skip ", (_row("exceeded seq", rf"Skip {_INT} sample exceeded seq-length", lambda match: Documents(0, int(match[1]))),)),
    (
        "mmlu acc",
        (_row("mmlu acc = ", rf"mmlu acc = {_INT}/{_INT}={_FLOAT}", lambda m: Accuracy(int(m[1]), int(m[2]), float(m[3]))),),
    ),
    ("done", (_sign("setup done", "done with setup ..."), _sign("training done", "[after training is done]"))),
    ("exiting program ", (_sign("stopped by SIGTERM", "after receiving SIGTERM"), _sign("stopped by an exit flag", "exiting program a"))),
    ("Done!", (_sign("conversion done", "Done!"),)),
    ("save weight to ", (_sign("weights saved", "save weight to "),)),
    ("metadata file", (_sign("random weights", "could not find the metadata file"),)),
    ("MMLU Running", (_sign("MMLU ended", "MMLU Running Time:"),)),
    ("------------", (_row("------------", r"-{12,}", lambda match: Sign("rule")),)),
)


def parse_line(line: str) -> list[Event]:
    """Everything that ``line`` says, mostly nothing or one thing."""
    line = line[:_LONGEST]
    events: list[Event] = []
    for gate, rows in _GROUPS:
        if gate not in line:
            continue
        for row in rows:
            if row.needle in line and (match := row.pattern.search(line)):
                events.append(row.build(match))
                if len(line) - match.end() + match.start() < _REST:
                    return events
                events += map(row.build, row.pattern.finditer(line, match.end()))
    return events


def _grouped(number: str) -> int:
    """``65,536`` -> 65536."""
    return int(number.replace(",", "") or "0")
