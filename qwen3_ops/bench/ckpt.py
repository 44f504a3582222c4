"""``bench ckpt``: seconds, CPU seconds and memory of conversions and of a LoRA merge, beside a copy of the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel

from qwen3_ops.bench.machine import describe_machine
from qwen3_ops.bench.models import HIDDEN_1024, write_random_model
from qwen3_ops.errors import OpsError

SLOPE_RATIO, MERGE_RATIO, PEAK_MB, GROWTH_MB, START_UP = 1.5, 2.0, 1000.0, 100.0, 3.0
"""What is to be reached: times the copy's seconds per further GB (twice), megabytes, megabytes, seconds."""

_SMALLEST = "start-up"
_LAYERS = {_SMALLEST: 2, "1 GB": 12, "2 GB": 44}
"""About 20, 500 and 1,000 million parameters, of which 311 million lie in the vocabulary's two matrices, but for the smallest."""

_HF_TO_MG = "--load-model-type hf --save-model-type mg --load-dir {hf}"
_CONVERSIONS = {
    "hf to mg, TP1 PP1": _HF_TO_MG,
    "hf to mg, TP2 PP2": f"{_HF_TO_MG} --target-tensor-parallel-size 2 --target-pipeline-parallel-size 2",
    "mg to hf": "--load-model-type mg --save-model-type hf --load-dir {base} --hf-cfg-dir {hf}",
    "LoRA merge, mg to mg": "--load-model-type mg --save-model-type mg --load-dir {base} --lora-load {adapter}",
}


class Run(BaseModel):
    """One process, the fastest of several. Seconds; peak resident memory in megabytes (10^6 bytes)."""

    gb: float
    wall: float
    cpu: float
    peak_mb: float = 0.0


class Figures(BaseModel):
    """What was measured: name of the conversion -> size -> run."""

    machine: str
    runs: dict[str, dict[str, Run]]
    start_up: float

    def slope(self, what: str, *, of: Literal["wall", "cpu"] = "wall") -> float:
        """Seconds for each further GB of weights."""
        small, large = self.runs[what]["1 GB"], self.runs[what]["2 GB"]
        return float(getattr(large, of) - getattr(small, of)) / (large.gb - small.gb)

    def growth(self, what: str) -> float:
        return self.runs[what]["2 GB"].peak_mb - self.runs[what]["1 GB"].peak_mb

    def peak(self) -> float:
        return max(run.peak_mb for sizes in self.runs.values() for run in sizes.values())


def measure(*, repeat: int, seed: int, folder: Path | None = None) -> Figures:
    """Needs 15 GB below ``folder`` (default: the system's temporary folder).

    Raises:
        OpsError: a measured process failed; its last words are in the message.
    """
    runs: dict[str, dict[str, Run]] = {}
    with TemporaryDirectory(prefix="qwen3-ops-bench-", dir=folder) as name:
        works = {size: Path(name) / size.replace(" ", "") for size in _LAYERS}
        # In a process of its own: a measured process would take over this one's peak memory.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            for size, layers in _LAYERS.items():
                pool.submit(_prepare, works[size], layers=layers, vocab=1024 if size == _SMALLEST else 151_936, seed=seed).result()
        start_up = _measure(works.pop(_SMALLEST), "hf to mg, TP1 PP1").wall
        for _ in range(repeat):
            for what in ("cp and fsync", *_CONVERSIONS):
                for size, work in works.items():  # by turns, so that a busy moment of the machine meets both
                    run = _measure(work, what)
                    sizes = runs.setdefault(what, {})
                    sizes[size] = min(run, sizes.get(size, run), key=lambda item: item.wall)
    return Figures(machine=describe_machine(), runs=runs, start_up=start_up)


def _prepare(work: Path, *, layers: int, vocab: int, seed: int) -> None:
    """A model, its checkpoint and an adapter of it."""
    work.mkdir()
    shape = {**HIDDEN_1024, "vocab_size": vocab, "num_hidden_layers": layers, "tie_word_embeddings": False}
    write_random_model(work / "hf", seed=seed, **shape)
    _convert(work, *_flags(work, "hf to mg, TP1 PP1"), "--save-dir", str(work / "base"))
    _make_adapter(work / "base", work / "adapter")


def _measure(work: Path, what: str) -> Run:
    weights = work / "hf" / "model.safetensors"
    gb = weights.stat().st_size / 1e9
    if what not in _CONVERSIONS:
        wall, cpu = _copy(weights, work / "copy")
        return Run(gb=gb, wall=wall, cpu=cpu)
    wall, cpu, peak = _convert(work, *_flags(work, what), "--save-dir", str(work / "out"))
    shutil.rmtree(work / "out")
    return Run(gb=gb, wall=wall, cpu=cpu, peak_mb=peak)


def _flags(work: Path, what: str) -> list[str]:
    return [flag.format(hf=work / "hf", base=work / "base", adapter=work / "adapter") for flag in _CONVERSIONS[what].split()]


def _copy(source: Path, target: Path) -> tuple[float, float]:
    os.sync()
    program = "import os, sys, subprocess; subprocess.run(['cp', *sys.argv[1:]], check=True); os.fsync(os.open(sys.argv[2], os.O_RDONLY))"
    started = time.perf_counter()
    cpu, _ = _timed([sys.executable, "-c", program, str(source), str(target)], log=target.with_suffix(".log"))
    wall = time.perf_counter() - started
    target.unlink()
    return wall, cpu


def _convert(work: Path, *flags: str) -> tuple[float, float, float]:
    os.sync()
    started = time.perf_counter()
    cpu, peak = _timed([sys.executable, "-m", "qwen3_ops", "convert-ckpt", *flags], log=work / "convert.log")
    return time.perf_counter() - started, cpu, peak


def _timed(command: Sequence[str], *, log: Path) -> tuple[float, float]:
    """CPU seconds and peak memory (megabytes) of a process and of those it started."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise OpsError("a measured process failed", value=log.read_text(errors="replace")[-2000:])
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


def _make_adapter(base: Path, folder: Path) -> None:
    """LoRA of rank 16 on every linear layer."""
    import torch

    from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint
    from qwen3_ops.native.checkpoint.modules import LINEAR_KINDS, parse_layer_name, shape_of

    checkpoint = open_checkpoint(base)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name in checkpoint.names():
        parsed = parse_layer_name(name)
        if parsed is not None and parsed.kind in LINEAR_KINDS:
            rows, columns = shape_of(name, checkpoint.model)
            for half, shape in (("A", (16, columns)), ("B", (rows, 16))):
                state[f"{name.removesuffix('.weight')}.lora_{half}.default.weight"] = torch.randn(shape, generator=generator) * 0.05
    write_checkpoint(
        folder, iteration=1, state=state, model=checkpoint.model, layout=checkpoint.layout, dtype="bf16",
        extra_args={"lora_alpha": 32}, lora_only=True,
    )  # fmt: skip


def print_figures(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "", "1 GB: wall s", "CPU s", "peak MB", "2 GB: wall s", "CPU s", "peak MB", "s per GB", "CPU s per GB", title=figures.machine
    )
    for what, sizes in figures.runs.items():
        cells = [
            text for run in sizes.values() for text in (f"{run.wall:.2f}", f"{run.cpu:.2f}", f"{run.peak_mb:.0f}" if run.peak_mb else "")
        ]
        table.add_row(what, *cells, f"{figures.slope(what):.2f}", f"{figures.slope(what, of='cpu'):.2f}")
    console = Console()
    console.print(table)
    copy = figures.slope("cp and fsync")
    reaches = [
        (f"slope over the copy's, {what}", figures.slope(what) / copy, MERGE_RATIO if "merge" in what else SLOPE_RATIO)
        for what in figures.runs
        if what != "cp and fsync"
    ]
    reaches += [
        (f"memory's growth from 1 to 2 GB, MB, {what}", figures.growth(what), GROWTH_MB) for what in figures.runs if what != "cp and fsync"
    ]
    reaches += [("peak memory, MB", figures.peak(), PEAK_MB), ("start-up, s", figures.start_up, START_UP)]
    for what, value, limit in reaches:
        console.print(f"{what}: {value:.2f} (reach: {limit:g}) {'reached' if value <= limit else 'missed'}", highlight=False)
