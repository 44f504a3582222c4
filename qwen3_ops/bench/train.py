"""``bench train``: our training step beside transformers' on the same weights and batches, by turns, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel

from qwen3_ops.bench.machine import describe_machine
from qwen3_ops.bench.models import HIDDEN_1024, write_random_model
from qwen3_ops.bench.train_step import Measured, Work
from qwen3_ops.errors import BadInput, OpsError, QualityGate

SPEED, MEMORY, LONG_MEMORY = 1.0, 1.0, 0.6
"""What is to be reached: at least as many steps a second, at most as much memory, and that much of it where the sequences are long."""

Candidate = Literal["ours", "transformers"]
_CANDIDATES: tuple[Candidate, ...] = ("ours", "transformers")

TWIN = {
    "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
    "intermediate_size": 192, "vocab_size": 1024, "tie_word_embeddings": False,
}  # fmt: skip
_SLICE = {**HIDDEN_1024, "num_hidden_layers": 4, "tie_word_embeddings": True}


class Case(BaseModel):
    """A shape and its batches.

    Attributes:
        rounds: at most so many; long cases repeat less.
    """

    shape: Mapping[str, int | bool]
    rows: int
    length: int
    learnt: float
    steps: int
    warm_up: int
    rounds: int = 1_000_000
    memory: float = MEMORY


CASES: Mapping[str, Case] = {
    "tiny twin, 4 x 128 tokens": Case(shape=TWIN, rows=4, length=128, learnt=1.0, steps=200, warm_up=20),
    "4 layers of 0.6B, 1 x 1024 tokens": Case(shape=_SLICE, rows=1, length=1024, learnt=1.0, steps=1, warm_up=1),
    "the same, a quarter of the tokens learnt": Case(shape=_SLICE, rows=1, length=1024, learnt=0.25, steps=1, warm_up=1),
    "the same, 1 x 4096 tokens": Case(shape=_SLICE, rows=1, length=4096, learnt=1.0, steps=1, warm_up=1, rounds=1, memory=LONG_MEMORY),
}
"""On accelerators the three last ones take ten steps each, which are as quick as one on a CPU."""


class Row(BaseModel):
    """One case of one candidate: the fastest of its processes, and the largest peak of all of them.

    Attributes:
        tflops: of the model (Megatron's formula, whole sequences); None where not every token is learnt.
        utilisation: these over ``peak_tflops``, or over what a large product of two matrices reaches here.
    """

    steps_per_second: float
    cpu_per_step: float
    tokens_per_second: float
    peak_mb: float
    losses: list[float]
    tflops: float | None
    utilisation: float | None


class Figures(BaseModel):
    """What was measured: case -> candidate -> row."""

    machine: str
    device: str
    dtype: str
    rounds: int
    peak_tflops: float | None
    rows: dict[str, dict[Candidate, Row]]

    def ratio(self, case: str, what: Literal["steps_per_second", "cpu_per_step", "peak_mb"]) -> float:
        """Ours over transformers'."""
        return float(getattr(self.rows[case]["ours"], what) / getattr(self.rows[case]["transformers"], what))


def measure(
    *, repeat: int, seed: int, device: str = "cpu", dtype: Literal["fp32", "bf16"] = "fp32", peak_tflops: float | None = None,
    cases: Mapping[str, Case] = CASES,
) -> Figures:  # fmt: skip
    """Needs 14 GB of memory for the longest case.

    Raises:
        BadInput: there is no such device.
        OpsError: a measured process failed; its last words are in the message.
        QualityGate: the candidates' losses differ, so that they did not do the same.
    """
    _check_device(device)
    rows: dict[str, dict[Candidate, Row]] = {}
    with TemporaryDirectory(prefix="qwen3-ops-bench-") as name:
        for number, (title, case) in enumerate(cases.items()):
            folder = Path(name) / str(number)
            write_random_model(folder, seed=seed, **case.shape)
            steps = case.steps if device == "cpu" else max(10, case.steps)
            works = {
                candidate: Work(
                    candidate=candidate, model=folder, device=device, dtype=dtype, rows=case.rows, length=case.length, learnt=case.learnt,
                    steps=steps, warm_up=case.warm_up, seed=seed,
                )
                for candidate in _CANDIDATES
            }  # fmt: skip
            runs: dict[Candidate, list[Measured]] = {candidate: [] for candidate in _CANDIDATES}
            for turn in range(min(repeat, case.rounds)):
                for candidate in _CANDIDATES if turn % 2 == 0 else reversed(_CANDIDATES):  # by turns: a busy moment meets both
                    runs[candidate].append(_run(works[candidate]))
            _compare_losses(title, runs, dtype=dtype)
            rows[title] = {candidate: _row(works[candidate], runs[candidate], peak_tflops) for candidate in _CANDIDATES}
    return Figures(machine=describe_machine(), device=device, dtype=dtype, rounds=repeat, peak_tflops=peak_tflops, rows=rows)


def _check_device(name: str) -> None:
    import torch

    kind = name.partition(":")[0]
    if kind == "npu":
        try:
            import torch_npu  # noqa: F401
        except ImportError as error:
            raise BadInput("there is no torch_npu", value=name, source="--device") from error
    if kind != "cpu" and not (hasattr(torch, kind) and torch.get_device_module(kind).is_available()):
        raise BadInput("there is no such device here", value=name, source="--device", remedy="Choose cpu, cuda or npu.")


def _run(work: Work) -> Measured:
    argv = [sys.executable, "-m", "qwen3_ops.bench.train_step", work.model_dump_json()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"})
    if done.returncode:
        raise OpsError(f"the steps of {work.candidate} failed", value=done.stderr[-2000:] or f"status {done.returncode}")
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def _compare_losses(title: str, runs: Mapping[Candidate, list[Measured]], *, dtype: str) -> None:
    """The first step's loss within 1e-4, or 1e-2 in bf16: same weights, same batches."""
    ours, theirs = (runs[candidate][0].losses[0] for candidate in _CANDIDATES)
    if not abs(ours - theirs) <= (1e-4 if dtype == "fp32" else 1e-2):
        raise QualityGate("the candidates' losses differ", value=f"{ours} and {theirs}", source=title)


def _row(work: Work, runs: list[Measured], peak_tflops: float | None) -> Row:
    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.training.log import floating_point_operations

    best = min(runs, key=lambda run: run.wall)
    seconds = best.wall / work.steps
    tflops = None
    if work.learnt == 1.0:
        spec = ModelSpec.from_hf(work.model)
        tflops = floating_point_operations(spec, batch_size=work.rows, seq_length=work.length) / seconds / 1e12
    return Row(
        steps_per_second=1 / seconds,
        cpu_per_step=min(run.cpu for run in runs) / work.steps,
        tokens_per_second=work.rows * work.length / seconds,
        peak_mb=max(run.peak_mb for run in runs),
        losses=best.losses[:5],
        tflops=tflops,
        utilisation=None if tflops is None else tflops / (peak_tflops or max(run.matmul_tflops for run in runs)),
    )


def print_figures(figures: Figures, cases: Mapping[str, Case] = CASES) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "", "", "steps/s", "CPU s a step", "tokens/s", "peak MB", "TFLOP/s", "utilisation",
        title=f"{figures.machine}; {figures.device}, {figures.dtype}",
    )  # fmt: skip
    for title, candidates in figures.rows.items():
        for name, row in candidates.items():
            shown = ("", "") if row.tflops is None or row.utilisation is None else (f"{row.tflops:.3f}", f"{row.utilisation:.0%}")
            table.add_row(
                title if name == "ours" else "", name, f"{row.steps_per_second:.3g}", f"{row.cpu_per_step:.3g}",
                f"{row.tokens_per_second:,.0f}", f"{row.peak_mb:,.0f}", *shown,
            )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"Utilisation: of {figures.peak_tflops or 'what a large product of two matrices reaches here'}", highlight=False)
    for title in figures.rows:
        speed, cpu, memory = (figures.ratio(title, what) for what in ("steps_per_second", "cpu_per_step", "peak_mb"))
        for what, value, limit, reached in (
            ("steps a second over transformers'", speed, SPEED, speed >= SPEED),
            ("CPU seconds a step over transformers'", cpu, SPEED, cpu <= SPEED),
            ("peak memory over transformers'", memory, cases[title].memory, memory <= cases[title].memory),
        ):
            console.print(f"{title}: {what}: {value:.2f} (reach: {limit:g}) {'reached' if reached else 'missed'}", highlight=False)
