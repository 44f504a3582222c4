"""One stage of a plan: its artifact reused, resumed or made. What every runtime starts."""

from __future__ import annotations

import json
import shutil
import traceback
from pathlib import Path

from filelock import FileLock

from qwen3_ops.artifacts import Manifest, link, read_manifest, require_artifact, write_atomically, writing
from qwen3_ops.errors import BadInput, ExitCode, OpsError
from qwen3_ops.events import Events, format_seconds
from qwen3_ops.execute import Interpret, Provenance, classify, interruptible, run_verb
from qwen3_ops.native.checkpoint.tracker import TRACKER
from qwen3_ops.plan import Plan, StagePlan, load_plan
from qwen3_ops.sharding import joined_from, part_of
from qwen3_ops.stages import STAGES
from qwen3_ops.stages.resume import resume
from qwen3_ops.verbs import VERBS, Context


def run_stage(plan_path: Path, name: str, *, part: str | None = None, join: int = 1, node_rank: int | None = None) -> ExitCode:
    """One stage of a plan: reuse, resume or make its artifact. What every runtime starts.

    The exit status also goes to ``exit.json``, for a runtime that lost its child process.

    Args:
        part: I/N to make this part of the stage's data set only.
        join: the number of its parts to make the data set of.
        node_rank: this host's place among several; the others than the first publish nothing. None: as its addresses say.
    """
    plan = load_plan(plan_path)
    stage = plan.stage(name)
    if part is not None:
        stage = part_of(stage, part)
    elif join > 1:
        stage = joined_from(stage, join)
    node_rank = _place(plan, stage, node_rank)
    folder, own = plan.stage_dir(stage.name), _own_name(node_rank)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"exit{own}.json").unlink(missing_ok=True)
    events = Events(folder / f"events{own}.jsonl")
    error = None
    try:
        with interruptible():
            if own:
                _take_part(plan, stage, events, side=folder, node_rank=node_rank)
            else:
                manifest = _make_or_reuse(plan, stage, events, side=folder, node_rank=node_rank)
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
    write_atomically(folder / f"exit{own}.json", json.dumps({"exit_code": int(code), "error": error}) + "\n")
    return code


def _place(plan: Plan, stage: StagePlan, node_rank: int | None) -> int | None:
    if not stage.commands:
        return None
    from qwen3_ops.mindspeed.nodes import place_of_this_host

    return place_of_this_host(plan.config.hosts, count=len(stage.commands), node_rank=node_rank)


def _own_name(node_rank: int | None) -> str:
    """What a host that helps puts into the names of its files; the first one's files are the stage's."""
    return f"-node{node_rank}" if node_rank else ""


def _take_part(plan: Plan, stage: StagePlan, events: Events, *, side: Path, node_rank: int | None) -> None:
    """Run another host's share of a stage; the first host publishes what all made."""
    final = Path(stage.output)
    if _finished(stage, events):
        return
    interpret = _mindspeed(plan, stage, node_rank)
    interpret(stage.argv, Context(events=events, output=final, side=side))
    events.log(f"{stage.title}: node {node_rank} is done")


def _make_or_reuse(plan: Plan, stage: StagePlan, events: Events, *, side: Path, node_rank: int | None) -> Manifest:
    final = Path(stage.output)
    if manifest := _finished(stage, events):  # another user's artifact can be read, its lock can not be taken
        return manifest
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(final.with_name(f".{final.name}.lock")).acquire()
    with lock:  # two runs that ask for the same artifact: the second waits and takes the first's
        if manifest := _finished(stage, events):
            return manifest
        for name, kinds in STAGES[stage.stage].inputs.items():
            require_artifact(Path(stage.inputs[name].path), kinds)
        _remove_leftovers(final)
        verb, argv, interpret = VERBS[stage.verb], stage.argv, None
        if stage.engine == "mindspeed":
            interpret = _mindspeed(plan, stage, node_rank)
        elif verb.in_place:
            argv = _resumed(stage, events)
        provenance = Provenance(
            stage=stage.stage, engine=stage.engine, key=stage.key, config=plan.config.model_dump(mode="json"), inputs=stage.inputs
        )
        events.log(f"{stage.title}: {_command_line(stage, argv)}")
        made = run_verb(verb, argv, events=events, provenance=provenance, output=final, side=side, interpret=interpret)
        if made is None:
            raise BadInput("the stage published nothing", value=stage.name)
        return made


def _finished(stage: StagePlan, events: Events) -> Manifest | None:
    """The stage's artifact, where it stands already."""
    manifest = read_manifest(Path(stage.output))
    if manifest is None or manifest.key != stage.key:
        return None
    events.log(f"{stage.title}: finished before, taken from {stage.output}", reused=True)
    return manifest


def _mindspeed(plan: Plan, stage: StagePlan, node_rank: int | None) -> Interpret:
    from qwen3_ops.mindspeed.engine import interpreter

    return interpreter(plan, stage, node_rank=node_rank)


def _command_line(stage: StagePlan, argv: list[str]) -> str:
    """What a person would type."""
    words = [f"qwen3-ops {stage.verb}", *argv] if not stage.commands else stage.commands[0].argv
    return " ".join(words)


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


def _tell(stage: StagePlan, manifest: Manifest, events: Events) -> None:
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in manifest.metrics.items()
        if isinstance(value, (int, float, str))
    )
    events.log(f"{stage.title}: {format_seconds(manifest.seconds)}, {shown or manifest.kind} -> {stage.output}")
    events.emit("result", metrics=manifest.metrics)
