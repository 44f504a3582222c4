"""How a model is cut over devices: tensor, pipeline, expert, context and data parallel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from qwen3_ops.config import RunConfig


class Rank(NamedTuple):
    """Place of one checkpoint shard."""

    tp: int
    pp: int
    ep: int


class ParallelLayout(BaseModel):
    """Megatron's model-parallel sizes; data parallel follows from the world size.

    Attributes:
        num_layers_per_virtual_pipeline_stage: layers of one model chunk; None: one chunk a stage.
        num_layer_list: layers of each pipeline stage; None: the same number in each.
        noop_layers: positions that hold no layer. They count as layers when stages are cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    context_parallel_size: int = 1
    expert_model_parallel_size: int = 1
    num_layers_per_virtual_pipeline_stage: int | None = None
    num_layer_list: tuple[int, ...] | None = None
    noop_layers: tuple[int, ...] = ()

    @property
    def model_parallel_size(self) -> int:
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size

    def rank_folder(self, tp: int, pp: int, ep: int = 0) -> str:
        """``mp_rank_00``; with pipeline parallelism ``mp_rank_00_000``; with expert parallelism one number more."""
        name = f"mp_rank_{tp:02d}"
        if self.pipeline_model_parallel_size > 1:
            name += f"_{pp:03d}"
        return f"{name}_{ep:03d}" if self.expert_model_parallel_size > 1 else name

    def ranks(self) -> Iterator[Rank]:
        """Every checkpoint shard, tensor ranks fastest."""
        for pp in range(self.pipeline_model_parallel_size):
            for ep in range(self.expert_model_parallel_size):
                for tp in range(self.tensor_model_parallel_size):
                    yield Rank(tp, pp, ep)

    def total_layers(self, num_layers: int) -> int:
        """Positions that are cut into stages: the layers and the places without one."""
        return num_layers + len(self.noop_layers)

    def num_chunks(self, num_layers: int) -> int:
        """Model chunks of each pipeline stage; 1 without virtual stages."""
        per_chunk = self.num_layers_per_virtual_pipeline_stage
        return 1 if per_chunk is None else self.total_layers(num_layers) // self.pipeline_model_parallel_size // per_chunk

    def chunks_of_stage(self, pp: int, *, num_layers: int) -> list[list[int | None]]:
        """The model chunks of pipeline stage ``pp``: for each position the layer's global number, None for a no-op."""
        total, stages = self.total_layers(num_layers), self.pipeline_model_parallel_size
        real = iter(range(num_layers))
        layers = [None if position in self.noop_layers else next(real) for position in range(total)]
        if self.num_layer_list is not None:
            start = sum(self.num_layer_list[:pp])
            return [layers[start : start + self.num_layer_list[pp]]]
        chunks = self.num_chunks(num_layers)
        size = total // stages // chunks
        return [layers[(chunk * stages + pp) * size :][:size] for chunk in range(chunks)]

    def __str__(self) -> str:
        parts = [f"TP{self.tensor_model_parallel_size}", f"PP{self.pipeline_model_parallel_size}"]
        parts += [f"CP{self.context_parallel_size}"] if self.context_parallel_size > 1 else []
        parts += [f"EP{self.expert_model_parallel_size}"] if self.expert_model_parallel_size > 1 else []
        if self.num_layers_per_virtual_pipeline_stage is not None:
            parts.append(f"virtual stages of {self.num_layers_per_virtual_pipeline_stage}")
        if self.num_layer_list is not None:
            parts.append("layers " + ",".join(map(str, self.num_layer_list)))
        if self.noop_layers:
            parts.append("no-op " + ",".join(map(str, self.noop_layers)))
        return " ".join(parts)


def world_size(run: RunConfig) -> int:
    """Devices of all nodes."""
    return run.nproc_per_node * run.nnodes


def data_parallel_size(run: RunConfig) -> int:
    """Copies of the model; 0 where the devices do not even hold one."""
    return world_size(run) // (run.tensor_model_parallel_size * run.pipeline_model_parallel_size * run.context_parallel_size)
