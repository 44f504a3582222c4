"""What a container starts: one command, its output in a file, its end on record.

Runs as ``python -m qwen3_ops.attempt [--source SCRIPT]... [--queue FILE] [--claim FILE] FOLDER ID -- ARGV...`` and leaves in FOLDER

- ``stage.log``: all that the command and its children print, appended;
- ``attempt.json``: which attempt this is, its pid, and how it ended; known also when the
  container that ran it is gone.

Standard library only: it starts in an image of which nothing else is known.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

LOG = "stage.log"
EXIT = "exit.json"
ATTEMPT = "attempt.json"

_NOT_FOUND, _NOT_STARTED = 127, 126  # as a shell says it


class _Record:
    """``attempt.json``: replaced as a whole, so it can always be read."""

    def __init__(self, folder: Path, attempt: str) -> None:
        log = folder / LOG
        self._path = folder / ATTEMPT
        self._known = {"id": attempt, "pid": os.getpid(), "log_start": log.stat().st_size if log.exists() else 0}

    def write(self, *, child: int | None = None, exit_code: int | None = None) -> None:
        temporary = self._path.with_name(f".{ATTEMPT}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({**self._known, "child": child, "exit_code": exit_code}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def end(self, exit_code: int) -> int:
        self.write(exit_code=exit_code)
        return exit_code


def main(argv: Sequence[str]) -> int:
    own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="python -m qwen3_ops.attempt")
    parser.add_argument("folder", type=Path)
    parser.add_argument("id")
    parser.add_argument("--source", action="append", default=[], help="Script whose variables the command gets, as set_env.sh.")
    parser.add_argument("--queue", type=Path, help="File whose lock is waited for: one command at a time.")
    parser.add_argument("--claim", type=Path, help="JSON that must name this attempt: another may have taken its place.")
    options = parser.parse_args(own)
    with contextlib.ExitStack() as held:
        if not _lock(options.folder / f".{ATTEMPT}.lock", held, wait=False):
            return _NOT_STARTED  # another attempt runs; the record is its own
        if options.claim is not None and json.loads(options.claim.read_text(encoding="utf-8"))["attempt"] != options.id:
            return _NOT_STARTED
        record = _Record(options.folder, options.id)
        record.write()
        if options.queue is not None:
            _lock(options.queue, held, wait=True)
        return run(options.folder, record, command, scripts=options.source)


def run(folder: Path, record: _Record, command: Sequence[str], *, scripts: Sequence[str] = ()) -> int:
    """Run ``command`` to its end; SIGTERM and SIGINT are handed on to it.

    Returns:
        Its exit status, 128 + N after signal N.
    """
    (folder / EXIT).unlink(missing_ok=True)
    with (folder / LOG).open("ab", buffering=0) as log:  # whole before the record tells of the end
        told: list[int] = []
        child: subprocess.Popen[bytes] | None = None

        def hand_on(number: int, frame: FrameType | None) -> None:
            if child is None:
                told.append(number)
            else:
                child.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, hand_on)
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(scripts), cwd=folder, start_new_session=True
            )
        except subprocess.CalledProcessError as failure:
            log.write(failure.stderr + b"error: not started: a script of the host profile's env_scripts failed, see above\n")
            return record.end(_NOT_STARTED)
        except OSError as error:
            log.write(f"error: {command[0]} can not be started: {error}\n".encode())
            return record.end(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_STARTED)
        record.write(child=child.pid)
        for early in told:  # between the handlers and the child
            child.send_signal(early)
        code = child.wait()
        with contextlib.suppress(ProcessLookupError):  # its helpers end with it, as they do with a container
            os.killpg(child.pid, signal.SIGKILL)
    return record.end(code if code >= 0 else 128 - code)


def _lock(path: Path, held: contextlib.ExitStack, *, wait: bool) -> bool:
    """Take the lock for as long as ``held`` lives, or until this process dies."""
    file = held.enter_context(path.open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _environment(scripts: Sequence[str]) -> dict[str, str]:
    """This process's variables after ``scripts`` were sourced; the scripts are the host profile's, never a user's.

    Raises:
        subprocess.CalledProcessError: one failed; ``stderr`` holds what all of them printed.
    """
    if not scripts:
        return dict(os.environ)
    program = 'for script; do . "$script" || { echo "$script: status $?"; exit 1; }; done >&2; exec env -0'
    with tempfile.TemporaryFile() as said:  # no pipe: what a script leaves running would keep it open
        done = subprocess.run(["/bin/bash", "-c", program, "bash", *scripts], stdout=subprocess.PIPE, stderr=said, check=False)
        said.seek(0)
        done.stderr = said.read()
    done.check_returncode()
    pairs = (entry.partition("=") for entry in os.fsdecode(done.stdout).split("\0") if entry)
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
