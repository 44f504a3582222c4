"""What a rendered command asks for, read from its argv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_ops.artifacts import Kind
from qwen3_ops.flags import get_flag
from qwen3_ops.layout import ParallelLayout


@dataclass(frozen=True, kw_only=True)
class Request:
    """One stage as the mindspeed engine sees it.

    Attributes:
        argv: flags of the script, without torchrun's.
        output: folder that is written into.
        devices: over all nodes; 1 for a script that torchrun does not start.
    """

    verb: str
    kind: Kind
    argv: tuple[str, ...]
    output: Path
    devices: int

    def value(self, flag: str) -> str | None:
        return get_flag(self.argv, flag)

    def has(self, flag: str) -> bool:
        return flag in self.argv

    @property
    def is_conversion(self) -> bool:
        return self.verb == "convert-ckpt"

    @property
    def layout(self) -> ParallelLayout:
        """Of the model that runs, or of the checkpoint that a conversion writes."""
        names = ("target-tensor-parallel-size", "target-pipeline-parallel-size", "target-expert-parallel-size")
        if not self.is_conversion:
            names = ("tensor-model-parallel-size", "pipeline-model-parallel-size", "expert-model-parallel-size")
        tp, pp, ep = (int(self.value(f"--{name}") or 1) for name in names)
        return ParallelLayout(
            tensor_model_parallel_size=tp,
            pipeline_model_parallel_size=pp,
            expert_model_parallel_size=ep,
            context_parallel_size=int(self.value("--context-parallel-size") or 1),
        )

    @property
    def data_parallel(self) -> int:
        return max(self.devices // self.layout.model_parallel_size, 1)

    @property
    def train_iters(self) -> int:
        return int(self.value("--train-iters") or 0)

    @property
    def load(self) -> str | None:
        return self.value("--load")

    @property
    def lora_targets(self) -> list[str]:
        return values_of(self.argv, "--lora-target-modules")


def values_of(argv: Sequence[str], flag: str) -> list[str]:
    """All values of a flag that takes several."""
    if flag not in argv:
        return []
    values = []
    for token in list(argv)[list(argv).index(flag) + 1 :]:
        if token.startswith("--"):
            break
        values.append(token)
    return values
