"""How a model is cut over devices: tensor, pipeline, context and data parallel."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict


class ParallelLayout(BaseModel):
    """Megatron's model-parallel sizes; data parallel follows from the world size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    context_parallel_size: int = 1

    @property
    def model_parallel_size(self) -> int:
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size

    def rank_folder(self, tp: int, pp: int) -> str:
        """``mp_rank_00`` without pipeline parallelism, ``mp_rank_00_000`` with it."""
        return f"mp_rank_{tp:02d}" if self.pipeline_model_parallel_size == 1 else f"mp_rank_{tp:02d}_{pp:03d}"

    def ranks(self) -> Iterator[tuple[int, int]]:
        """(tp, pp) of every checkpoint shard, tensor ranks fastest."""
        for pp in range(self.pipeline_model_parallel_size):
            for tp in range(self.tensor_model_parallel_size):
                yield tp, pp

    def layers_of_stage(self, pp: int, *, num_layers: int) -> range:
        """Global numbers of the layers that pipeline stage ``pp`` holds."""
        per_stage = num_layers // self.pipeline_model_parallel_size
        return range(pp * per_stage, (pp + 1) * per_stage)

    def __str__(self) -> str:
        text = f"TP{self.tensor_model_parallel_size} PP{self.pipeline_model_parallel_size}"
        return text if self.context_parallel_size == 1 else f"{text} CP{self.context_parallel_size}"
