"""``bench data``: wall and CPU time, tokens a second and memory of preprocess-data, beside the bare tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from qwen3_ops.artifacts import read_manifest
from qwen3_ops.bench.bare import HANDLER, PROMPT_TYPE
from qwen3_ops.bench.corpus import alpaca, write_alpaca
from qwen3_ops.bench.machine import describe_machine
from qwen3_ops.errors import BadInput, OpsError

WALL_RATIO, PEAK_MB, START_UP = 1.3, 700.0, 1.5
"""What is to be reached: times the bare tokenizer's wall time, megabytes, seconds."""


class Run(BaseModel):
    """One process. Seconds; peak resident memory in megabytes (10^6 bytes)."""

    records: int
    tokens: int
    wall: float
    cpu: float
    peak_mb: float


class Figures(BaseModel):
    """
    Attributes:
        prepared: preprocess-data from its start to its end; ``doubled`` the same on twice the records, ``start_up`` on ten,
            ``plain`` with ``--tokenizer-backend tokenizers``.
        bare_load, bare_wall, bare_cpu: seconds to load the tokenizer and to encode the same strings in the same batches.
    """

    machine: str
    tokenizer: str
    prepared: Run
    doubled: Run
    start_up: Run
    plain: Run
    bare_load: float
    bare_wall: float
    bare_cpu: float

    @property
    def ratio(self) -> float:
        """Whole run over the tokenizer's encoding alone: the strictest reading."""
        return self.prepared.wall / self.bare_wall

    @property
    def plain_ratio(self) -> float:
        """The same without tiktoken."""
        return self.plain.wall / self.bare_wall

    @property
    def marginal_ratio(self) -> float:
        """What the second half of the doubled input took, over the tokenizer's encoding: start-up and loading fall out."""
        return (self.doubled.wall - self.prepared.wall) / self.bare_wall


def measure(tokenizer: Path | None, *, records: int, repeat: int, seed: int) -> Figures:
    """
    Raises:
        BadInput: no ``tokenizer.json`` in the folder.
        OpsError: a measured process failed; its last words are in the message.
    """
    with TemporaryDirectory(prefix="qwen3-ops-bench-") as name:
        work = Path(name)
        folder = tokenizer or _trained(work / "tokenizer", seed=seed)
        if not (folder / "tokenizer.json").is_file():
            raise BadInput("no tokenizer.json", value=folder, source="--tokenizer")
        sizes = {"prepared": records, "doubled": 2 * records, "start_up": 10, "plain": records}
        for size in set(sizes.values()):
            write_alpaca(work / f"{size}.jsonl", records=size, seed=seed)
        bare, runs = [], {kind: [] for kind in sizes}  # type: tuple[list[dict[str, float]], dict[str, list[Run]]]
        for _ in range(repeat):  # by turns, so that a busy moment of the machine meets all
            bare.append(_bare(folder, work / f"{records}.jsonl"))
            for kind, size in sizes.items():
                backend = "tokenizers" if kind == "plain" else "auto"
                runs[kind].append(_prepare(folder, work / f"{size}.jsonl", work / f"out-{time.monotonic_ns()}", backend=backend))
        best = {kind: min(found, key=lambda run: run.wall) for kind, found in runs.items()}
        alone = min(bare, key=lambda figures: figures["wall"])
        return Figures(
            machine=describe_machine(), tokenizer="given" if tokenizer else "trained on the records, 4,096 entries",
            prepared=best["prepared"], doubled=best["doubled"], start_up=best["start_up"], plain=best["plain"],
            bare_load=alone["load"], bare_wall=alone["wall"], bare_cpu=alone["cpu"],
        )  # fmt: skip


def print_figures(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "records", "wall s", "CPU s", "tokens/s", "peak MB", title=f"{figures.machine}; tokenizer: {figures.tokenizer}")
    rows = {
        "preprocess-data": figures.prepared, "twice the input": figures.doubled, "start-up": figures.start_up,
        "by tokenizers alone": figures.plain,
    }  # fmt: skip
    for title, run in rows.items():
        table.add_row(title, f"{run.records:,}", f"{run.wall:.2f}", f"{run.cpu:.2f}", f"{run.tokens / run.wall:,.0f}", f"{run.peak_mb:.0f}")
    encoded = figures.prepared
    speed = f"{encoded.tokens / figures.bare_wall:,.0f}"
    table.add_row("bare tokenizer", f"{encoded.records:,}", f"{figures.bare_wall:.2f}", f"{figures.bare_cpu:.2f}", speed, "")
    console = Console()
    console.print(table)
    peak = max(figures.prepared.peak_mb, figures.doubled.peak_mb)
    for what, value, limit in (
        ("wall time over the bare tokenizer's", figures.ratio, WALL_RATIO),
        ("the same, by tokenizers alone", figures.plain_ratio, WALL_RATIO),
        ("the first, of the doubled input's second half", figures.marginal_ratio, WALL_RATIO),
        ("peak memory, MB", peak, PEAK_MB),
        ("peak memory, doubled over single input", figures.doubled.peak_mb / figures.prepared.peak_mb, 1.1),
        ("start-up, s", figures.start_up.wall, START_UP),
    ):
        console.print(f"{what}: {value:.2f} (reach: {limit}) {'reached' if value <= limit else 'missed'}", highlight=False)


def _trained(folder: Path, *, seed: int) -> Path:
    from qwen3_ops.native.tiny.tokenizer import train_tokenizer, write_tokenizer

    folder.mkdir()
    texts = [record["output"] for record in alpaca(records=2000, seed=seed)]
    write_tokenizer(train_tokenizer(texts, vocabulary_size=4096), folder)
    return folder


def _bare(tokenizer: Path, records: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "qwen3_ops.bench.bare", str(tokenizer / "tokenizer.json"), str(records)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise OpsError("the bare tokenizer failed", value=done.stderr[-2000:])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _prepare(tokenizer: Path, records: Path, output: Path, *, backend: str) -> Run:
    started = time.perf_counter()
    code, cpu, peak, said = _timed(
        [
            *(sys.executable, "-m", "qwen3_ops", "preprocess-data", "--input", str(records), "--output-prefix", str(output / "d")),
            *("--tokenizer-name-or-path", str(tokenizer), "--tokenizer-type", "PretrainedFromHF"),
            *("--handler-name", HANDLER, "--prompt-type", PROMPT_TYPE, "--tokenizer-backend", backend),
        ],
        log=output.with_suffix(".log"),
    )  # fmt: skip
    wall = time.perf_counter() - started
    manifest = read_manifest(output)
    if code or manifest is None:
        raise OpsError("preprocess-data failed", value=said[-2000:])
    return Run(records=manifest.metrics["records"], tokens=manifest.metrics["tokens"], wall=wall, cpu=cpu, peak_mb=peak / 1e6)


def _timed(argv: Sequence[str], *, log: Path) -> tuple[int, float, int, str]:
    """Exit status, CPU seconds, peak resident bytes and output of a process."""
    with log.open("w") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, log.read_text()
