"""Who this process is among the ranks, and which shard is its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwen3_ops.layout import ParallelLayout

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class World:
    """Ranks in Megatron's order: tensor fastest, then context, data, pipeline."""

    rank: int
    size: int
    nodes: int
    layout: ParallelLayout

    @classmethod
    def of(cls, layout: ParallelLayout) -> World:
        """As Megatron settles it: TP and PP are lowered to what the world holds, without a word.

        Raises:
            AssertionError: the world is not divisible.
        """
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        tp = min(layout.tensor_model_parallel_size, size)
        pp = min(layout.pipeline_model_parallel_size, size // tp)
        cp = layout.context_parallel_size
        if size % (tp * pp * cp):
            raise AssertionError(
                f"world size ({size}) is not divisible by tensor parallel size ({tp}) times pipeline parallel size ({pp}) "
                f"times context parallel size ({cp})"
            )
        settled = ParallelLayout(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, context_parallel_size=cp)
        return cls(rank=rank, size=size, nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")), layout=settled)

    @property
    def data_parallel(self) -> int:
        return self.size // self.layout.model_parallel_size

    @property
    def computes(self) -> bool:
        return self.rank == self.size - 1

    @property
    def tensor_rank(self) -> int:
        return self.rank % self.layout.tensor_model_parallel_size

    @property
    def pipeline_rank(self) -> int:
        return self.rank // (self.size // self.layout.pipeline_model_parallel_size)

    @property
    def saves(self) -> bool:
        """Of the ranks with the same shard, the first one writes it."""
        stage = self.rank % (self.size // self.layout.pipeline_model_parallel_size)
        return stage < self.layout.tensor_model_parallel_size

    @property
    def shard(self) -> str:
        return self.layout.rank_folder(self.tensor_rank, self.pipeline_rank)

    def line(self) -> str:
        """As Megatron prints it after the arguments are checked."""
        tp, pp = self.layout.tensor_model_parallel_size, self.layout.pipeline_model_parallel_size
        return (
            f"using world size: {self.size}, data-parallel size: {self.data_parallel}, "
            f"context-parallel size: {self.layout.context_parallel_size} "
            f"tensor-model-parallel size: {tp}, pipeline-model-parallel size: {pp} "
        )


def leave_world() -> None:
    """For the native engine, which computes alone."""
    for name in _TORCHRUN:
        os.environ.pop(name, None)


def say(*lines: str) -> None:
    """One write a line, so that lines of several ranks are not torn apart."""
    for line in lines:
        print(line + "\n", end="", flush=True)


def layout_of(flags: Any) -> ParallelLayout:
    return ParallelLayout(
        tensor_model_parallel_size=flags.tensor_model_parallel_size,
        pipeline_model_parallel_size=flags.pipeline_model_parallel_size,
        context_parallel_size=getattr(flags, "context_parallel_size", 1) or 1,
    )


def without(argv: Sequence[str], *flags: str) -> list[str]:
    """``argv`` without some flags that take no value."""
    return [token for token in argv if token not in flags]
