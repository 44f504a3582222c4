"""``posttrain_gpt.py`` and ``pretrain_gpt.py``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from qwen3_ops.errors import Interrupted
from qwen3_ops.events import Events
from qwen3_ops.flags import replace_flag
from qwen3_ops.native.checkpoint.tracker import iteration_folder, write_tracker
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.verbs import VERBS, Context
from rehearsal.failing import Failure
from rehearsal.ranks import Ranks
from rehearsal.shards import load_shard, save_shard
from rehearsal.world import World, layout_of, leave_world, say, without

SLOW = "QWEN3_REHEARSAL_SLOW"
"""Environment variable: seconds that every iteration takes longer, for those who want to watch or to stop it."""

_NEWER = ("--no-pad-to-seq-lengths",)  # flags of later MindSpeed-LLM that change nothing here
_UNHANDLED = "--exit-signal-handler"


def main() -> None:
    argv = without(sys.argv[1:], *_NEWER)
    flags, _ = FLAGS.parse(argv)
    handles_signals = _UNHANDLED in argv
    signal.signal(signal.SIGTERM, signal.SIG_IGN if handles_signals else signal.SIG_DFL)
    world = World.of(layout_of(flags))
    failure = Failure.wanted()
    ranks = Ranks(world)
    if world.rank == 0:
        say(world.line(), "> compiling dataset index builder ...")
    if failure is not None and failure.iteration == 0:
        failure.befall(world.rank, size=world.size)
    _load(flags, world)
    if world.computes:
        sys.exit(_compute(argv, flags, world, ranks, failure))
    sys.exit(ranks.follow(partial(_obey, flags=flags, world=world, failure=failure)))


def _load(flags: FLAGS, world: World) -> None:
    for folder in (flags.load, flags.lora_load):
        if folder is None:
            continue
        iteration = load_shard(folder, world)
        if iteration is None:
            time.sleep(60)  # the real tool would train from random weights for days
            sys.exit(0)
        if world.rank == 0:
            if flags.finetune:
                say("could not find arguments in the checkpoint ...")
            say(" checkpoint version 3.0")
            say(
                f"  successfully loaded checkpoint from {folder} [ t {world.tensor_rank}, p {world.pipeline_rank} ] "
                f"at iteration {0 if flags.finetune else iteration}"
            )


def _compute(argv: list[str], flags: FLAGS, world: World, ranks: Ranks, failure: Failure | None) -> int:
    """Train for all ranks; what is saved goes to a scratch folder, from which every rank takes its part."""
    leave_world()
    scratch = None
    if flags.save is not None:
        for old in flags.save.glob(".rehearsal-*"):
            shutil.rmtree(old, ignore_errors=True)
        scratch = flags.save / f".rehearsal-{os.getpid()}"
        argv = replace_flag(argv, "--save", str(scratch))
    own, _ = FLAGS.parse(without(argv, _UNHANDLED))
    events = Leader(ranks, save=flags.save, scratch=scratch, world=world, failure=failure)
    sys.stdout = Lines(sys.stdout)
    status = 0
    try:
        VERBS["train"].implementation()(own, Context(events=events, output=scratch))
        say(f"[after training is done] datetime: {time.strftime('%Y-%m-%d %H:%M:%S')} ")
    except Interrupted:
        say("exiting program after receiving SIGTERM.")
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    ranks.end(status)
    return status


class Leader(Events):
    """Hears of every iteration and every save of the native trainer, and lets the other ranks do their part."""

    def __init__(self, ranks: Ranks, *, save: Path | None, scratch: Path | None, world: World, failure: Failure | None) -> None:
        super().__init__()
        self._ranks, self._save, self._scratch, self._world, self._failure = ranks, save, scratch, world, failure

    def metric(self, *, step: int | None = None, **values: float) -> None:
        time.sleep(float(os.environ.get(SLOW, "0")))
        failure = self._failure
        if failure is None or step != failure.iteration:
            return
        self._ranks.order("fail")
        failure.befall(self._world.rank, size=self._world.size)
        if failure.ending != "go on" and failure.rank % self._world.size != self._world.rank:
            time.sleep(3600)  # until torchrun ends this rank as well

    def emit(self, event: str, **fields: Any) -> None:
        if event != "checkpoint" or self._save is None or self._scratch is None:
            return
        iteration = fields["iteration"]
        self._ranks.order("save", iteration=iteration, scratch=str(self._scratch))
        save_shard(self._scratch, self._save, iteration=iteration, world=self._world)
        made, target = (iteration_folder(folder, iteration) for folder in (self._scratch, self._save))
        for state in made.iterdir():  # the trainer's state, which no rank owns
            if not state.name.startswith("mp_rank_"):
                state.rename(target / state.name)
        if self._world.rank == 0:
            _publish(self._save, iteration)
        else:
            self._ranks.order("publish", iteration=iteration)


class Lines:
    """The native trainer's stdout, without the lines about the scratch folder; rank 0 tells of the real one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if " checkpoint " not in line or "checkpoint from" in line.partition("loaded ")[2]:
                self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _obey(order: dict[str, Any], *, flags: FLAGS, world: World, failure: Failure | None) -> None:
    if order["do"] == "fail" and failure is not None:
        failure.befall(world.rank, size=world.size)
    elif order["do"] == "save" and flags.save is not None:
        save_shard(Path(order["scratch"]), flags.save, iteration=order["iteration"], world=world)
    elif order["do"] == "publish" and flags.save is not None and world.rank == 0:
        _publish(flags.save, order["iteration"])


def _publish(save: Path, iteration: int) -> None:
    """Of rank 0, when every rank's file is in its place."""
    say(f"saving checkpoint at iteration {iteration:7d} to {save} in torch format")
    write_tracker(save, iteration)
    say(f"  successfully saved checkpoint from iteration {iteration:7d} to {save}", f"finish permission set for files in {save}")
