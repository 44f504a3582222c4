"""FSDP2 (``--use-torch-fsdp2``): every process keeps a part of each parameter, gradient and moment.

PyTorch's ``fully_shard`` gathers a layer's weights while they are needed. Parameters are kept in fp32 and gathered
in the dtype of the run: they are the master weights. Frozen ones as well, for torch 2.6 wants one dtype in a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.distributed import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(model: Qwen3, world: World, *, dtype: torch.dtype) -> None:
    """Cut the parameters of ``model`` over the processes, each layer for itself; ``dtype`` is computed in."""
    from torch.distributed.device_mesh import init_device_mesh  # a second of imports that one process alone does not need
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for layer in model.decoder.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "hidden_states")


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    return hasattr(tensor, "full_tensor")


@torch.no_grad()
def assign(tensor: Tensor, whole: Tensor) -> None:
    """Set ``tensor``, or this process's part of it, to the values of ``whole``."""
    if is_sharded(tensor):
        parts = whole.chunk(tensor.device_mesh.size())  # as FSDP2 cuts: along the first dimension, the last part may be short
        rank = tensor.device_mesh.get_local_rank()
        tensor.to_local().copy_(parts[rank] if rank < len(parts) else whole[:0])
    else:
        tensor.copy_(whole)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process has to ask for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor
