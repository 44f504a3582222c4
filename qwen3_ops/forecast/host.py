"""Memory of the host: conversions, and training where the native engine does it."""

from __future__ import annotations

import os
from typing import Literal

from qwen3_ops.config import Engine, RunConfig
from qwen3_ops.forecast.parameters import adapter_parameters
from qwen3_ops.model import ModelSpec

_NATIVE_CONVERSION = 700_000_000
"""Measured, whatever the model's size (docs/benchmarks.md): tensors pass one by one."""

_INTERPRETER = 700_000_000
"""torch and transformers imported."""


def conversion_memory(model: ModelSpec, *, engine: Engine) -> int:
    """Bytes.

    MindSpeed-LLM's ``convert_ckpt.py`` holds the model about five times: in fp32 as transformers
    loads it (4 bytes a weight), cast to the wanted type, and as Megatron's model in the loader, on the
    way, and in the saver (2 each): 10 bytes a weight, an estimate from its source.
    """
    return _NATIVE_CONVERSION if engine == "native" else 10 * model.num_parameters


def native_training_memory(run: RunConfig, model: ModelSpec, *, kind: Literal["full", "lora"]) -> int:
    """Bytes of weights, gradients and optimizer in one process; activations come on top."""
    trained = model.num_parameters if kind == "full" else adapter_parameters(run, model)
    width = 4 if model.params_dtype == "fp32" else 2
    return width * model.num_parameters + (4 + 12) * trained + _INTERPRETER


def host_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
