"""Diagnosis of logs that lie on a disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen3_ops.errors import BadInput
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser, Diagnosis


def diagnose_logs(paths: Sequence[Path]) -> Diagnosis | None:
    """The earliest error of all files together.

    Raises:
        BadInput: a file can not be read.
    """
    diagnoser = Diagnoser()
    for path in paths:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    diagnoser.feed(line.rstrip("\r\n"), source=str(path))
        except OSError as error:
            raise BadInput("a log can not be read", value=error, source=path) from error
    return diagnoser.conclude()
