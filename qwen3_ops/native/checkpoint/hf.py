"""Hugging Face folders: Qwen3 weights read as mcore tensors, and written from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput
from qwen3_ops.model import ModelSpec, read_json
from qwen3_ops.native.checkpoint.rank_file import TensorSpec
from qwen3_ops.native.checkpoint.safetensors_file import SafetensorsFile, SafetensorsWriter
from qwen3_ops.native.checkpoint.sharding import base_names, from_hf, hf_names, hf_shapes, to_hf
from qwen3_ops.native.checkpoint.state import LazyState, check_names, check_shape

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000  # transformers' default

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip

# Order of a layer's weights in transformers' module tree; it decides which shard each goes to.
_LAYER_ORDER = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip


class HfWeights:
    """The weights of a Hugging Face folder, opened and checked; nothing is read yet.

    Attributes:
        folder: with config.json and one or many safetensors files.
        model: what config.json says.
        dtype: of the weights, None where they differ among themselves.

    Raises:
        BadInput: a file or tensor missing, unknown or of a wrong shape, or not a dense Qwen3.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = ModelSpec.from_hf(folder)
        self._files = {name: file for file in _open_files(folder) for name in file.specs}
        expected = {name: shape for mcore in base_names(self.model) for name, shape in _hf_shapes_of(mcore, self.model)}
        # Small tied models are published with a copy of the embedding as lm_head.
        tied_copy = set() if self.model.untie_embeddings_and_output_weights else {"lm_head.weight"}
        check_names(self._files.keys() - tied_copy, expected, source=folder)
        for name, shape in expected.items():
            check_shape(name, self._spec(name).shape, shape, source=self._files[name].path)
        dtypes = {self._spec(name).dtype for name in expected}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else None

    def state(self, dtype: torch.dtype) -> LazyState:
        """Whole mcore tensors, each made when it is asked for."""

        def load(name: str) -> Tensor:
            return from_hf(name, [self._files[hf].tensor(hf).to(dtype) for hf in hf_names(name)], self.model)

        return LazyState(base_names(self.model), load)

    def _spec(self, name: str) -> TensorSpec:
        return self._files[name].specs[name]


def _open_files(folder: Path) -> list[SafetensorsFile]:
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX, what="the weights' index").get("weight_map")
        names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise BadInput("the weights' index names no files of its folder", source=folder / INDEX)
        return [SafetensorsFile(folder / name) for name in sorted(names)]
    if not (folder / WEIGHTS).is_file():
        raise BadInput(
            "there are no safetensors weights", value=folder, remedy=f"The folder must hold {WEIGHTS}, or {INDEX} and its files."
        )
    return [SafetensorsFile(folder / WEIGHTS)]


def _hf_shapes_of(name: str, model: ModelSpec) -> list[tuple[str, tuple[int, ...]]]:
    return list(zip(hf_names(name), hf_shapes(name, model), strict=True))


def write_weights(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    model: ModelSpec,
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write ``model*.safetensors`` (and the index of several) as transformers' ``save_pretrained`` does.

    Args:
        state: whole mcore tensors, without LoRA; read one at a time. The vocabulary's may have padding rows.
        progress: called with the bytes of each mcore tensor written.
    """
    shapes = {name: shape for mcore in base_names(model) for name, shape in _hf_shapes_of(mcore, model)}
    specs = {name: TensorSpec(dtype, shapes[name]) for name in _module_order(model)}
    shards = _plan_shards(specs, max_shard_bytes)
    with ExitStack() as stack:
        writers: dict[str, SafetensorsWriter] = {}
        for file, names in shards.items():
            writer = stack.enter_context(closing(SafetensorsWriter(folder / file, {name: specs[name] for name in names})))
            writers |= dict.fromkeys(names, writer)
        for mcore in base_names(model):
            tensor = state[mcore].to(dtype)
            for (name, shape), part in zip(_hf_shapes_of(mcore, model), to_hf(mcore, tensor, model), strict=True):
                writers[name].write(name, part[: shape[0]])
            progress(tensor.numel() * tensor.element_size())
        for writer in dict.fromkeys(writers.values()):
            writer.finish()
    if len(shards) > 1:
        total = {"total_parameters": sum(spec.numel for spec in specs.values()), "total_size": sum(spec.nbytes for spec in specs.values())}
        index = {"metadata": total, "weight_map": {name: file for file, names in shards.items() for name in names}}
        write_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def _module_order(model: ModelSpec) -> list[str]:
    layers = [f"model.layers.{layer}.{module}.weight" for layer in range(model.num_layers) for module in _LAYER_ORDER]
    head = ["lm_head.weight"] if model.untie_embeddings_and_output_weights else []
    return ["model.embed_tokens.weight", *layers, "model.norm.weight", *head]


def _plan_shards(specs: Mapping[str, TensorSpec], max_shard_bytes: int) -> dict[str, list[str]]:
    """File name -> its tensors: filled in order, a new file where the next tensor would exceed the limit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, spec in specs.items():
        if shards[-1] and filled + spec.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += spec.nbytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": names for number, names in enumerate(shards, start=1)}


def write_config(folder: Path, *, base: Path, dtype: torch.dtype) -> None:
    """The base model's config.json with the dtype of the weights, generation_config.json and tokenizer files."""
    config = read_json(base / "config.json", what="the base model's config.json")
    key = "dtype" if "dtype" in config else "torch_dtype"
    name = str(dtype).removeprefix("torch.")
    if config.get(key) == name:
        shutil.copyfile(base / "config.json", folder / "config.json")
    else:
        changed: dict[str, Any] = {**config, key: name}
        write_atomically(folder / "config.json", json.dumps(changed, indent=2, ensure_ascii=False) + "\n")
    for file in ("generation_config.json", *TOKENIZER_FILES):
        if (base / file).is_file():
            shutil.copyfile(base / file, folder / file)
