"""Random Qwen3 folders of any shape, the same bytes for the same seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_ops.model import ModelSpec

if TYPE_CHECKING:
    import torch

    from qwen3_ops.native.model import Qwen3

HIDDEN_1024: dict[str, Any] = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151_936,
}
"""Of Qwen3-0.6B, all but its 28 layers."""


def write_random_model(folder: Path, *, seed: int, **shape: Any) -> ModelSpec:
    """``folder`` with config.json (``shape`` are its entries) and bf16 weights, written tensor by tensor."""
    import torch

    from qwen3_ops.native.checkpoint.hf import write_weights
    from qwen3_ops.native.checkpoint.mcore_writer import StateSource
    from qwen3_ops.native.checkpoint.modules import base_names, shape_of
    from qwen3_ops.native.checkpoint.state import LazyState

    folder.mkdir()
    numerics = {"rope_theta": 1000000, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"}
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **numerics, **shape}
    (folder / "config.json").write_text(json.dumps(config))
    model = ModelSpec.from_hf(folder)
    names = list(base_names(model))

    def random(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed + names.index(name))
        return torch.empty(shape_of(name, model), dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)

    write_weights(folder, StateSource(LazyState(names, random), torch.bfloat16), model=model, dtype=torch.bfloat16)
    return model


def load_hf(folder: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> Qwen3:
    """This engine's model with the weights of a Hugging Face folder."""
    from qwen3_ops.native.checkpoint.hf import HfWeights
    from qwen3_ops.native.checkpoint.state import LazyState
    from qwen3_ops.native.model import build_model, load_full_state

    weights = HfWeights(folder)
    model = build_model(weights.model, dtype=dtype, device=device)
    load_full_state(model, LazyState(weights.names(), lambda name: weights.make(name).tensor()))
    return model
