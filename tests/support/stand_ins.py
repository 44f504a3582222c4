"""Small programs that stand in for MindSpeed-LLM where a test is about those who watch it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from qwen3_ops.command import Command
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.native.checkpoint.tracker import iteration_folder, write_tracker

LINE = (
    " [2026-11-24 10:00:00] iteration {:8d}/{:8d} | consumed samples: 4 | elapsed time per iteration (ms): 100.0 | learning rate: 1.0E-05 | "
    "global batch size:     4 | lm loss: {} | loss scale: 1.0 | grad norm: 1.0 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)


def python(script: str, *arguments: str) -> Command:
    return Command(env={}, cwd="/", argv=[sys.executable, "-c", script, *arguments])


def write_ranks(save: Path, iteration: int, *, tp: int = 2, pp: int = 4, leave_out: str = "", tracker: bool = True) -> None:
    """A checkpoint of small zip archives."""
    layout = ParallelLayout(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
    for rank in layout.ranks():
        folder = iteration_folder(save, iteration) / layout.rank_folder(*rank)
        folder.mkdir(parents=True)
        if folder.name != leave_out:
            with zipfile.ZipFile(folder / "model_optim_rng.pt", "w") as archive:
                archive.writestr("x", folder.name)
    if tracker:
        write_tracker(save, iteration)
