"""One started command: its lines, its workers, and the end of everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from qwen3_ops.command import Command
from qwen3_ops.errors import BadInput
from qwen3_ops.procfs import Identity, children, in_group, with_variable

_MARK = "QWEN3_OPS_ENGINE_PROCESS"
_CHUNK = 1 << 18  # bytes
_UNKILLABLE = 60.0  # seconds
_ENDING = 10.0  # seconds between the end of its output and its own


class Child:
    """A command in a process group of its own, stdout and stderr in one stream and raw in ``log``.

    Not in a session of its own: who stops a job tells session leaders, and torchrun, once told, gives its workers half a
    minute. Its workers open sessions of their own, so everything is marked by an environment variable. The mark is the
    log's path: what an earlier start of the same stage left behind, when it was killed itself, is found and ended first.
    """

    def __init__(self, command: Command, *, environment: Mapping[str, str], log: Path, name: str) -> None:
        """
        Raises:
            BadInput: the program or the folder is not there.
        """
        self.command, self.name = command, name
        self._mark = str(log)
        self._rest = b""
        inherited = {key: value for key, value in environment.items() if key != "PYTHONUNBUFFERED"}  # it would tear lines of ranks apart
        environment = {**inherited, **command.env, _MARK: self._mark}
        for process in with_variable(_MARK, self._mark):
            _signal(process.pid, signal.SIGKILL)
        self._log: BinaryIO = log.open("ab")
        try:
            self._process = subprocess.Popen(
                [_program(command, environment), *command.argv[1:]],
                cwd=command.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=os.setpgrp,  # noqa: PLW1509 - process_group=0 came with Python 3.11
            )
        except OSError as error:
            self._log.close()
            raise BadInput(
                "MindSpeed-LLM can not be started", value=error, source=f"{command.argv[0]} in {command.cwd}", remedy="Check mindspeed_dir."
            ) from error
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        os.set_blocking(self.fd, False)
        self.open = True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def read(self) -> list[str]:
        """Lines that arrived; carriage returns end one as well. ``open`` turns False at the end of the stream."""
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return []
        self._log.write(chunk)
        if not chunk:
            self.open = False
            self._log.flush()
        data = self._rest + chunk
        if len(data) > _CHUNK * 4 and b"\n" not in data:  # nothing prints such a line; it is cut
            data += b"\n"
        *lines, self._rest = data.split(b"\n")
        if not self.open and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return [part for line in lines for part in line.decode(errors="replace").rstrip("\r").split("\r")]

    def flush(self) -> None:
        self._log.flush()

    def ask_to_save(self) -> None:
        """SIGTERM to the workers themselves: torchrun would kill them half a minute after its own."""
        workers = children(self.pid)
        for worker in workers:
            _signal(worker.pid, signal.SIGTERM)
        if not workers:
            _signal(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL for it and everything it started."""
        for process in self.left_over():
            _signal(process.pid, signal.SIGKILL)
        if self.exit_code is None:
            self._process.kill()

    def left_over(self) -> set[Identity]:
        """Living processes that it started, itself included: those that bear the mark, and those of its group that have lost it."""
        return with_variable(_MARK, self._mark) | in_group(self.pid)

    def close(self) -> None:
        """Kill what is left and give everything back; a process that hangs inside a driver can not be killed and is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # its output is closed a moment before it has an exit status
            self._process.wait(timeout=0 if self.open else _ENDING)
        deadline = time.monotonic() + _UNKILLABLE
        while self.left_over() and time.monotonic() < deadline:
            self.kill()
            time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.1)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def _program(command: Command, environment: Mapping[str, str]) -> str:
    """The program's path by the PATH of the environment it gets, not by our own."""
    name = command.argv[0]
    if "/" in name:
        return name
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder or ".") / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise BadInput(
        "a program is not found",
        value=name,
        source=f"PATH={environment.get('PATH', '')}",
        remedy="Is conda activated in the login shell of the container?",
    )


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
