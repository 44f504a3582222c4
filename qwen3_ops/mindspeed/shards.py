"""Checkpoint folders as MindSpeed-LLM writes them: which iterations are complete, which are not, which are too many.

A rank's file appears before all ranks have written theirs, and the tracker after all of them. A run that is killed while
it saves leaves an iteration that lacks files, and a tracker that names the one before.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker, write_tracker

_ITERATION = re.compile(r"^iter_(\d{7,12})$")
_FILE = "model_optim_rng.pt"


def iterations(save: Path) -> dict[int, Path]:
    """Every iteration's folder, complete or not, by number."""
    found = {int(match[1]): path for path in save.glob("iter_*") if (match := _ITERATION.match(path.name))}
    return dict(sorted(found.items()))


def missing_ranks(folder: Path, layout: ParallelLayout) -> list[str]:
    """Names of the ranks' folders that ``layout`` needs and ``folder`` has no readable file of."""
    names = [layout.rank_folder(*rank) for rank in layout.ranks()]
    return [name for name in names if not _is_whole(folder / name / _FILE)]


def foreign_ranks(folder: Path, layout: ParallelLayout) -> list[str]:
    """Names of the ranks' folders that do not belong to ``layout``."""
    names = {layout.rank_folder(*rank) for rank in layout.ranks()}
    return sorted(path.name for path in folder.glob("mp_rank_*") if path.name not in names)


def last_complete(save: Path, layout: ParallelLayout) -> int | None:
    """The newest iteration that the tracker has named so far and that every rank's file is there of."""
    newest = newest_named(save)
    if newest is None:
        return None
    complete = [number for number, folder in iterations(save).items() if number <= newest and not missing_ranks(folder, layout)]
    return complete[-1] if complete else None


def newest_named(save: Path) -> int | None:
    """What the tracker names; None without one.

    The machine may go down, or the disk fill up, after MindSpeed-LLM has opened the tracker and before its text is on the
    disk. All ranks have written by then, so a blank tracker names the newest iteration.
    """
    with contextlib.suppress(OSError):
        if not (save / TRACKER).read_bytes().strip(b"\0 \n"):
            return max(iterations(save), default=None)
    return read_tracker(save)


def repair(save: Path, *, iteration: int) -> list[str]:
    """Make ``iteration`` the newest: point the tracker at it, delete what is newer. Returns the names of what was deleted."""
    write_tracker(save, iteration)
    newer = [folder for number, folder in iterations(save).items() if number > iteration]
    for folder in newer:
        shutil.rmtree(folder)
    return [folder.name for folder in newer]


def retain(save: Path, *, keep_last: int) -> list[str]:
    """Delete the oldest iterations that the tracker has named, so that ``keep_last`` stay. Returns their names."""
    newest = read_tracker(save)
    if newest is None:
        return []
    named = [folder for number, folder in iterations(save).items() if number <= newest]
    doomed = named[:-keep_last]
    for folder in doomed:
        hidden = folder.with_name(f".{folder.name}.old")  # a deletion that is killed leaves no half iteration
        folder.rename(hidden)
        shutil.rmtree(hidden)
    return [folder.name for folder in doomed]


def remove_leftovers(save: Path) -> None:
    """What a deletion that was killed left behind."""
    for folder in save.glob(".iter_*.old"):
        shutil.rmtree(folder)


def gather(parts: Sequence[Path], save: Path, *, layout: ParallelLayout) -> int:
    """Copy the newest iteration of a checkpoint whose ranks lie in several nodes' folders into ``save``; its number.

    Raises:
        BadInput: no folder has a tracker, a rank is nowhere, or two folders have different files of one.
    """
    trackers = [number for part in parts if (number := read_tracker(part)) is not None]
    if not trackers:
        raise BadInput("none of the folders has a tracker", value=" ".join(map(str, parts)), remedy=f"Node 0 writes {TRACKER}.")
    number = max(trackers)
    target = iteration_folder(save, number)
    for rank in layout.ranks():
        name = layout.rank_folder(*rank)
        sources = [folder for part in parts if _is_whole((folder := iteration_folder(part, number) / name) / _FILE)]
        if not sources:
            raise BadInput(
                "a rank's file is in none of the folders", value=f"{target.name}/{name}", remedy="Name the folders of all nodes."
            )
        if len({(source / _FILE).stat().st_size for source in sources}) > 1:
            raise BadInput("the folders have different files of one rank", value=" ".join(map(str, sources)))
        if sources[0] != target / name:
            shutil.copytree(sources[0], target / name, dirs_exist_ok=True)
    write_tracker(save, number)
    return number


def _is_whole(file: Path) -> bool:
    """Not empty, and where it is a zip archive, as torch writes, with its directory, which comes last."""
    try:
        with file.open("rb") as opened:
            if opened.read(2) != b"PK":
                return file.stat().st_size > 0
        return zipfile.is_zipfile(file)
    except OSError:
        return False
