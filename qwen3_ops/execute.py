"""Running a verb and publishing what it made; the one place where artifacts come to be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from qwen3_ops.artifacts import (
    InputRef,
    Manifest,
    describe_files,
    staged_folder,
    versions,
    write_manifest,
)
from qwen3_ops.errors import BadInput, ExitCode, Infrastructure, Interrupted
from qwen3_ops.events import Events
from qwen3_ops.flags import Flags, get_flag, replace_flag
from qwen3_ops.verbs import Context, Outcome, Verb

Interpret = Callable[[list[str], Context], Outcome]
"""An engine: executes a verb's argv into ``Context.output``."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a manifest says beyond the argv: the plan's view of the stage."""

    stage: str
    engine: str = "native"
    key: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputRef] = field(default_factory=dict)


def run_verb(
    verb: Verb,
    argv: list[str],
    *,
    events: Events,
    provenance: Provenance,
    output: Path | None = None,
    side: Path | None = None,
    interpret: Interpret | None = None,
) -> Manifest | None:
    """Interpret ``argv`` and publish the result.

    Args:
        output: the artifact's folder for verbs whose real script names none; None: only print.
        side: see :class:`Context`.
        interpret: the engine; None: the native one.

    Returns:
        The published manifest, None when nothing was published.

    Raises:
        OpsError: with the exit code of the contract; nothing half-made is left to be seen.
    """
    interpret = interpret or native(verb, argv, events)
    final = output if verb.output_flag is None else _output_folder(verb, argv)
    started = time.time()
    if final is None:
        interpret(argv, Context(events=events, side=side))
        return None
    if verb.in_place:
        outcome = interpret(argv, Context(events=events, output=final, side=side))
        if not _first_process():
            return None
        manifest = _manifest(verb, argv, provenance, outcome, final, started)
        write_manifest(final, manifest)
        return manifest
    with staged_folder(final) as staging:
        outcome = interpret(_redirected(verb, argv, staging), Context(events=events, output=staging, side=side))
        manifest = _manifest(verb, argv, provenance, outcome, staging, started)
        write_manifest(staging, manifest)
    return manifest


def classify(failure: Exception) -> tuple[ExitCode, str]:
    """Exit code and message of an exception that is not ours."""
    if isinstance(failure, MemoryError):
        return ExitCode.INFRASTRUCTURE, "out of memory"
    if isinstance(failure, OSError) and failure.errno in (5, 12, 23, 24, 28, 122):  # EIO, ENOMEM, EN/MFILE, ENOSPC, EDQUOT
        return ExitCode.INFRASTRUCTURE, str(failure)
    return ExitCode.UNEXPECTED, f"unexpected {type(failure).__name__}: {failure}"


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGINT end a stage as Interrupted, so that temporary folders are removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}", remedy="Start it again: it goes on from what is saved.")

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _output_folder(verb: Verb, argv: list[str]) -> Path | None:
    value = None if verb.output_flag is None else get_flag(argv, verb.output_flag)
    if value is None:
        return None
    path = Path(value).absolute()
    return path.parent if verb.output_is_prefix else path


def _redirected(verb: Verb, argv: list[str], staging: Path) -> list[str]:
    if verb.output_flag is None:
        return argv
    value = staging / Path(get_flag(argv, verb.output_flag) or "").name if verb.output_is_prefix else staging
    return replace_flag(argv, verb.output_flag, str(value))


def native(verb: Verb, argv: list[str], events: Events) -> Interpret:
    """The native engine, after a look at the flags.

    Raises:
        BadInput: it does not take them.
    """
    _, inert = verb.flags().parse(argv)
    if inert and _first_process():
        events.log(f"without effect on this engine: {' '.join(inert)}")

    def interpret(argv: list[str], ctx: Context) -> Outcome:
        flags, _ = verb.flags().parse(argv)
        return _call(verb, flags, ctx)

    return interpret


def _first_process() -> bool:
    """Of those that torchrun started for one training run: it writes and publishes."""
    return int(os.environ.get("RANK", "0")) == 0


def _call(verb: Verb, flags: Flags, ctx: Context) -> Outcome:
    try:
        return verb.implementation()(flags, ctx)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{verb.name} needs a package that is not installed", value=error.name, remedy="Install qwen3-ops[native]."
        ) from error
    except MemoryError as error:
        raise Infrastructure("out of memory", value=error, remedy="Use a machine with more memory, or smaller batches.") from error


def _manifest(verb: Verb, argv: list[str], provenance: Provenance, outcome: Outcome, folder: Path, started: float) -> Manifest:
    finished = time.time()
    return Manifest(
        kind=outcome.kind,
        stage=provenance.stage,
        verb=verb.name,
        engine=provenance.engine,
        key=provenance.key,
        argv=argv,
        config=dict(provenance.config),
        inputs=dict(provenance.inputs),
        facts=dict(outcome.facts),
        metrics=dict(outcome.metrics),
        files=describe_files(folder, certified=outcome.certified),
        versions=versions(),
        started_at=_iso(started),
        finished_at=_iso(finished),
        seconds=round(finished - started, 3),
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
