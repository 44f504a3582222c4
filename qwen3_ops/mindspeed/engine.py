"""The mindspeed engine: one planned stage, interpreted by MindSpeed-LLM's own scripts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from qwen3_ops.command import Command
from qwen3_ops.errors import BadInput, OpsError
from qwen3_ops.execute import classify
from qwen3_ops.flags import get_flag
from qwen3_ops.mindspeed.hf_export import base_in_place
from qwen3_ops.mindspeed.judge import fail, judge, unexplained
from qwen3_ops.mindspeed.leased_ports import with_leased_ports
from qwen3_ops.mindspeed.login_env import login_environment
from qwen3_ops.mindspeed.nodes import Nodes
from qwen3_ops.mindspeed.observation import Observation
from qwen3_ops.mindspeed.outcome import outcome
from qwen3_ops.mindspeed.own_data import with_own_data
from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.resume import choose_start, note_launch
from qwen3_ops.mindspeed.shards import retain
from qwen3_ops.mindspeed.success import contradiction, missing_on_disk
from qwen3_ops.mindspeed.supervisor import Ended, Limits, Supervisor
from qwen3_ops.mindspeed.totals import Totals
from qwen3_ops.mindspeed.watchdog import silence_of
from qwen3_ops.plan import Plan, StagePlan
from qwen3_ops.stages.resume import resume
from qwen3_ops.verbs import VERBS, Context, Outcome

Interpret = Callable[[list[str], Context], Outcome]

_OTHERS_SECONDS = 600.0  # that the other hosts may take to end after this one
_ENDING = 10.0  # seconds from SIGTERM to SIGKILL where there is nothing to save


def interpreter(plan: Plan, stage: StagePlan, *, node_rank: int | None = None) -> Interpret:
    """What executes the stage's argv (its output folder exchanged or not) on all nodes, or on one of several hosts.

    It raises EngineFailed with the diagnosis, Interrupted after a signal, BadInput where nothing could be started.
    """

    def interpret(argv: list[str], ctx: Context) -> Outcome:
        assert ctx.output is not None and ctx.side is not None  # a planned stage has both
        request = Request(verb=stage.verb, kind=stage.kind, argv=tuple(argv), output=ctx.output, devices=sum(map(_devices, stage.commands)))
        nodes = Nodes.of(folder=ctx.side, count=len(stage.commands), node_rank=node_rank)
        nodes.begin()
        apart = bool(nodes.others) and plan.config.no_shared_storage
        try:
            if VERBS[stage.verb].in_place:
                made = _train(request, stage, ctx, nodes, keep_last=plan.config.keep_last, is_shared=not apart)
            else:
                with base_in_place(request, base=Path(plan.config.model_dir)):
                    seen = _supervise(request, stage, ctx, nodes).seen
                made = outcome(request, seen) if nodes.is_master else Outcome(kind=stage.kind, facts={}, metrics={})
            if apart:
                _require_all_parts(request, nodes)
            elif nodes.others:
                made = _agree(request, nodes, ctx, made)
        except Exception as error:
            code, text = (error.exit_code, str(error)) if isinstance(error, OpsError) else classify(error)
            with contextlib.suppress(OSError):  # a full disk: the others learn of it by HCCL
                nodes.failed(code, text)
            raise
        return made

    return interpret


def _agree(request: Request, nodes: Nodes, ctx: Context, made: Outcome) -> Outcome:
    """The first host waits for the others' commands and looks at what all wrote; the others wait for what it says."""
    nodes.ended()
    nodes.wait_for_others(seconds=_OTHERS_SECONDS)
    if not nodes.is_master:
        return made
    if missing := missing_on_disk(request):
        fail(unexplained("all nodes ended well", missing), ctx.events)
    nodes.done()
    return outcome(request, Observation()) if request.verb == "train" else made


def _require_all_parts(request: Request, nodes: Nodes) -> None:
    """Of the first host among several that share no disk, whose words do not reach it either.

    Raises:
        BadInput: the other hosts' parts of the checkpoint are not here.
    """
    if nodes.is_master and (missing := missing_on_disk(request)):
        raise BadInput(
            "this node's training is done, the other nodes' parts of the checkpoint lie on their own disks",
            value="; ".join(missing),
            source=request.output,
            remedy="Gather them into this folder with `qwen3-ops gather-ckpt` and start the stage again on this host.",
        )


def _train(request: Request, stage: StagePlan, ctx: Context, nodes: Nodes, *, keep_last: int | None, is_shared: bool) -> Outcome:
    """Start or go on, whichever the output folder asks for; nothing where all iterations are done."""
    start = choose_start(request, ctx.events, may_repair=nodes.is_master, is_shared=is_shared)
    before = (Totals.read(request.output) if start.iteration else None) or Totals()
    if start.is_done:
        ctx.events.log(f"all {request.train_iters} iterations are done already", resumed=True)
        return outcome(request, Observation())
    if start.iteration:
        ctx.events.log(f"{stage.title}: going on from iteration {start.iteration}", resumed=True)
        request = replace(request, argv=tuple(resume(request.argv, saved=str(request.output))))
    elif nodes.is_master:
        note_launch(request)
    seen = Observation(start=start.iteration)

    def saved(iteration: int) -> None:
        note()
        if keep_last is None:
            return
        try:
            for name in retain(request.output, keep_last=keep_last):
                ctx.events.log(f"removed {name}: {keep_last} checkpoints are kept")
        except OSError as error:  # such as a file that is open elsewhere on a shared disk; the training is worth more
            ctx.events.warning(f"an older checkpoint could not be removed, remove it by hand: {error}")

    def note() -> None:  # node 0 tells of saves, the last node of losses
        if seen.last is not None:
            before.after(seen).write(request.output)

    try:
        _supervise(request, stage, ctx, nodes, seen=seen, when_saved=saved)
    finally:
        note()
    return outcome(request, seen)


def _supervise(
    request: Request,
    stage: StagePlan,
    ctx: Context,
    nodes: Nodes,
    *,
    seen: Observation | None = None,
    when_saved: Callable[[int], None] = lambda iteration: None,
) -> Ended:
    """Run this process's share of the stage's commands and judge how they ended."""
    assert ctx.side is not None
    commands = _with_argv(stage, request.argv)
    silence, is_training = silence_of(stage.verb), VERBS[stage.verb].in_place
    supervisor = Supervisor(
        events=ctx.events,
        folder=ctx.side,
        limits=Limits(silence=silence) if is_training else Limits(silence=silence, save_grace=_ENDING),
        when_saved=when_saved,
        look_around=nodes.look,
        heard_elsewhere=partial(nodes.heard, speaker=nodes.count - 1 if is_training else 0),
        contradiction=partial(contradiction, request),
        seen=seen or Observation(),
    )
    environment = login_environment()
    if nodes.count == 1:
        commands = [with_leased_ports(commands[0], environment)]
    mine = {rank: with_own_data(commands[rank], ctx.side / "data" / f"node{rank}") for rank in nodes.ranks}
    ended = supervisor.run({f"node{rank}" if nodes.count > 1 else "engine": command for rank, command in mine.items()}, environment)
    judge(request, ended, ctx.events, is_whole=not nodes.others or (nodes.is_master and not is_training))
    return ended


def _with_argv(stage: StagePlan, argv: Sequence[str]) -> list[Command]:
    """The stage's commands with other flags behind the script's name."""
    commands = []
    for command in stage.commands:
        launcher = command.argv[: len(command.argv) - len(stage.argv)]
        if command.argv[len(launcher) :] != stage.argv:
            raise BadInput("the plan's command does not end in the stage's flags", value=" ".join(command.argv[:8]), source=stage.name)
        commands.append(command.model_copy(update={"argv": [*launcher, *argv]}))
    return commands


def _devices(command: Command) -> int:
    return int(get_flag(command.argv, "--nproc_per_node") or 1)
