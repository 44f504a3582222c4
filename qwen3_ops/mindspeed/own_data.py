"""The data set under a path of this run's own.

MindSpeed-LLM keeps the order of the records beside the data, in a file named after the data's prefix, the number of samples and the
seed: another split meets the order of before, hosts that share a disk write it at the same time, and data that others own can not be
written beside. Through links in the stage's folder, made anew at each start, the order is this start's and this host's own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from qwen3_ops.command import Command
from qwen3_ops.flags import get_flag, replace_flag

_SUFFIXES = (".bin", ".idx")


def with_own_data(command: Command, folder: Path) -> Command:
    """``command`` with ``--data-path`` exchanged for links in ``folder``; as it is where it names no data set that is here."""
    given = get_flag(command.argv, "--data-path")
    if given is None:
        return command
    prefix = Path(command.cwd, given)
    siblings = prefix.parent.iterdir() if prefix.parent.is_dir() else ()
    files = [path for path in siblings if path.name.startswith(prefix.name) and path.suffix in _SUFFIXES]
    if not files:
        return command
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in files:
        (folder / path.name).symlink_to(path)
    return command.model_copy(update={"argv": replace_flag(command.argv, "--data-path", str(folder / prefix.name))})
