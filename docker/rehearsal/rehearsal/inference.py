"""``inference.py`` and ``evaluation.py``: every rank loads its shard, the last one computes and logs to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from qwen3_ops.events import Events
from qwen3_ops.verbs import VERBS, Context
from rehearsal.failing import Failure
from rehearsal.ranks import Ranks
from rehearsal.shards import load_shard
from rehearsal.world import World, layout_of, leave_world, say


def main(verb: str) -> None:
    flags, _ = VERBS[verb].flags().parse(sys.argv[1:])
    if verb == "generate" and "task" not in flags.model_fields_set:
        raise EOFError("EOF when reading a line")  # the real script would ask a person
    world = World.of(layout_of(flags))
    ranks = Ranks(world)
    failure = Failure.wanted()
    if world.rank == 0:
        say(world.line())
    if failure is not None:
        failure.befall(world.rank, size=world.size)
    iteration = load_shard(flags.load, world)
    if iteration is None:
        time.sleep(60)
        sys.exit(0)
    if world.rank == 0:
        say(" checkpoint version 3.0", f"  successfully loaded checkpoint from {flags.load} [ t 0, p 0 ] at iteration {iteration}")
    if not world.computes:
        sys.exit(ranks.follow(lambda order: None))
    leave_world()
    logging.basicConfig(format="%(levelname)s:%(name)s:%(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as folder, _logged():
        VERBS[verb].implementation()(flags, Context(events=Events(), output=Path(folder)))
    ranks.end(0)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    with contextlib.redirect_stdout(Records()):
        yield


class Records:
    """What the native verb prints in one call becomes one record of the root logger, as the real scripts log it."""

    def write(self, text: str) -> int:
        if text != "\n" and not text.startswith("  successfully loaded"):
            logging.info(text.removesuffix("\n"))
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()
