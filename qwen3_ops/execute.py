"""Running a verb and publishing what it made; the one place where artifacts come to be."""

from __future__ import annotations

import json
import shutil
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock

from qwen3_ops.artifacts import (
    InputRef,
    Manifest,
    describe_files,
    link,
    read_manifest,
    require_artifact,
    staged_folder,
    versions,
    write_atomically,
    write_manifest,
    writing,
)
from qwen3_ops.errors import BadInput, ExitCode, Infrastructure, Interrupted, OpsError
from qwen3_ops.events import Events, format_seconds
from qwen3_ops.flags import Flags, get_flag, replace_flag
from qwen3_ops.native.checkpoint.tracker import TRACKER
from qwen3_ops.plan import Plan, StagePlan, load_plan
from qwen3_ops.stages import STAGES
from qwen3_ops.stages.resume import resume
from qwen3_ops.verbs import VERBS, Context, Outcome, Verb


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a manifest says beyond the argv: the plan's view of the stage."""

    stage: str
    engine: str = "native"
    key: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputRef] = field(default_factory=dict)


def run_verb(
    verb: Verb, argv: list[str], *, events: Events, provenance: Provenance, output: Path | None = None, side: Path | None = None
) -> Manifest | None:
    """Interpret ``argv`` with the native engine and publish the result.

    Args:
        output: the artifact's folder for verbs whose real script names none; None: only print.
        side: see :class:`Context`.

    Returns:
        The published manifest, None when nothing was published.

    Raises:
        OpsError: with the exit code of the contract; nothing half-made is left to be seen.
    """
    flags, inert = verb.flags().parse(argv)
    if inert:
        events.log(f"without effect on this engine: {' '.join(inert)}")
    final = output if verb.output_flag is None else _output_folder(verb, argv)
    started = time.time()
    if final is None:
        _call(verb, flags, Context(events=events, side=side))
        return None
    if verb.in_place:
        outcome = _call(verb, flags, Context(events=events, output=final, side=side))
        manifest = _manifest(verb, argv, provenance, outcome, final, started)
        write_manifest(final, manifest)
        return manifest
    with staged_folder(final) as staging:
        outcome = _call(verb, _redirected(verb, argv, final, staging), Context(events=events, output=staging, side=side))
        manifest = _manifest(verb, argv, provenance, outcome, staging, started)
        write_manifest(staging, manifest)
    return manifest


def run_stage(plan_path: Path, name: str) -> ExitCode:
    """One stage of a plan: reuse, resume or make its artifact. What every runtime starts.

    The exit status also goes to ``exit.json``, for a runtime that lost its child process.
    """
    plan = load_plan(plan_path)
    stage = plan.stage(name)
    folder = plan.stage_dir(name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "exit.json").unlink(missing_ok=True)
    events = Events(folder / "events.jsonl")
    error = None
    try:
        with interruptible():
            manifest = _make_or_reuse(plan, stage, events, side=folder)
        link(Path(stage.output), folder / "artifact")
        _tell(stage, manifest, events)
        code = ExitCode.DONE
    except OpsError as failure:
        code, error = failure.exit_code, str(failure)
        events.log(error, level="error", exit_code=int(code))
    except Exception as failure:
        code, error = classify(failure)
        events.log(f"{error}\n{traceback.format_exc()}", level="error", exit_code=int(code))
    finally:
        events.close()
    write_atomically(folder / "exit.json", json.dumps({"exit_code": int(code), "error": error}) + "\n")
    return code


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


def _make_or_reuse(plan: Plan, stage: StagePlan, events: Events, *, side: Path) -> Manifest:
    final = Path(stage.output)
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that ask for the same artifact: the second waits and takes the first's.
    with FileLock(final.with_name(f".{final.name}.lock")):
        manifest = read_manifest(final)
        if manifest is not None and manifest.key == stage.key:
            events.log(f"{stage.title}: finished before, taken from {final}", reused=True)
            return manifest
        for name, kinds in STAGES[stage.stage].inputs.items():
            require_artifact(Path(stage.inputs[name].path), kinds)
        _remove_leftovers(final)
        if stage.engine != "native":
            raise BadInput("this engine can only be planned so far", value=stage.engine, source=f"stage {name}")
        verb = VERBS[stage.verb]
        argv = _resumed(stage, events) if verb.in_place else stage.argv
        provenance = Provenance(
            stage=stage.stage, engine=stage.engine, key=stage.key, config=plan.config.model_dump(mode="json"), inputs=stage.inputs
        )
        events.log(f"{stage.title}: qwen3-ops {stage.verb} {' '.join(argv)}")
        made = run_verb(verb, argv, events=events, provenance=provenance, output=final, side=side)
        if made is None:
            raise BadInput("the stage published nothing", value=stage.name)
        return made


def _resumed(stage: StagePlan, events: Events) -> list[str]:
    """The stage's argv, changed to go on where an earlier start of it was stopped."""
    tracker = Path(stage.output) / TRACKER
    if not tracker.is_file():
        return stage.argv
    events.log(f"{stage.title}: going on from iteration {tracker.read_text().strip()}", resumed=True)
    return resume(stage.argv, saved=stage.output)


def _remove_leftovers(final: Path) -> None:
    """Temporary folders of a start that was killed; the lock says that no one writes them."""
    for leftover in final.parent.glob(f".{final.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _output_folder(verb: Verb, argv: list[str]) -> Path | None:
    value = None if verb.output_flag is None else get_flag(argv, verb.output_flag)
    if value is None:
        return None
    path = Path(value).absolute()
    return path.parent if verb.output_is_prefix else path


def _redirected(verb: Verb, argv: list[str], final: Path, staging: Path) -> Flags:
    if verb.output_flag is not None:
        value = staging / Path(get_flag(argv, verb.output_flag) or "").name if verb.output_is_prefix else staging
        argv = replace_flag(argv, verb.output_flag, str(value))
    flags, _ = verb.flags().parse(argv)
    return flags


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


def _tell(stage: StagePlan, manifest: Manifest, events: Events) -> None:
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in manifest.metrics.items()
        if isinstance(value, (int, float, str))
    )
    events.log(f"{stage.title}: {format_seconds(manifest.seconds)}, {shown or manifest.kind} -> {stage.output}")
    events.emit("result", metrics=manifest.metrics)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
