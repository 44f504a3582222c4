"""A Megatron checkpoint given as input: a wrong one means random weights, without an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding
from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker
from qwen3_ops.rules.registry import rule

_RANK = re.compile(r"mp_rank_(\d{2})(?:_(\d{3}))?(?:_(\d{3}))?")


@rule("load", about="weights")
def checkpoint_is_whole(run: RunConfig) -> Iterator[Finding]:
    if run.load is None:
        return
    folder = Path(run.load)
    try:
        iteration = read_tracker(folder)
    except BadInput as error:
        yield _broken(folder, str(error))
        return
    if not folder.is_absolute() or not folder.is_dir():
        yield _broken(folder, "is not an absolute path of a folder")
    elif iteration is None:
        hint = ", but it holds config.json: it is a Hugging Face folder" if (folder / "config.json").exists() else ""
        yield _broken(folder, f"has no {TRACKER}{hint}")
    else:
        yield from _ranks(iteration_folder(folder, iteration))


def _ranks(folder: Path) -> Iterator[Finding]:
    places = sorted(match.groups() for path in folder.glob("mp_rank_*") if (match := _RANK.fullmatch(path.name)) and any(path.glob("*")))
    if not places:
        yield _broken(folder, "has no mp_rank_* folders with files")
        return
    sizes = [sorted({place[axis] for place in places}, key=str) for axis in range(3)]
    expected = 1
    for numbers in sizes:
        expected *= len(numbers)
    counted = all(numbers == [None] or [int(n) for n in numbers if n] == list(range(len(numbers))) for numbers in sizes)
    if len(places) != expected or not counted:
        yield _broken(folder, f"has {len(places)} rank folders, which are not all of TP{len(sizes[0])} x PP{len(sizes[1])}")


def _broken(folder: Path, what: str) -> Finding:
    return Finding(
        rule="load must be a whole Megatron checkpoint",
        fields=("load",),
        values=f"{folder} {what}" if not what.startswith(str(folder)) else what,
        consequence="MindSpeed-LLM warns 'could not find the metadata file' and trains on random weights, or stops at a missing file",
        remedy="give the folder that holds the tracker file; gather the parts of a checkpoint that was saved on several nodes",
    )
