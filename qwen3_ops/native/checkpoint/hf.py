"""Hugging Face folders: Qwen3 weights read as mcore tensors, and written from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen3_ops.artifacts import sync, write_atomically
from qwen3_ops.errors import BadInput
from qwen3_ops.model import Dtype, ModelSpec, ModelType, read_json
from qwen3_ops.native.checkpoint.disk import require_space
from qwen3_ops.native.checkpoint.dtypes import ElementType, element_type
from qwen3_ops.native.checkpoint.modules import base_names, hf_names, shape_of
from qwen3_ops.native.checkpoint.placed_file import Buffers, Sink
from qwen3_ops.native.checkpoint.safetensors_file import SafetensorsFile, SafetensorsWriter
from qwen3_ops.native.checkpoint.sharding import hf_runs, hf_shapes
from qwen3_ops.native.checkpoint.state import Part, Source, check_names, check_shape
from qwen3_ops.native.checkpoint.tensor_spec import TensorSpec
from qwen3_ops.native.checkpoint.transfer import Job, Recorder, transfer
from qwen3_ops.native.checkpoint.whole import Piece, Whole, join

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000  # transformers' default

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip

# Order of a layer's weights in transformers' module tree; it decides which shard each goes to.
_ATTENTION_ORDER = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"))
_MLP_ORDER = ("gate_proj", "up_proj", "down_proj")
_NORM_ORDER = ("input_layernorm", "post_attention_layernorm")


class HfWeights:
    """The weights of a Hugging Face folder, opened and checked; nothing is read yet.

    Attributes:
        folder: with config.json and one or many safetensors files.
        model: what config.json says.
        dtype: of the weights, None where they differ among themselves.

    Raises:
        BadInput: a file or tensor missing, unknown or of a wrong shape, or not a Qwen3 of ``model_type``.
    """

    def __init__(self, folder: Path, *, model_type: ModelType = "qwen3") -> None:
        self.folder = folder
        self.model = ModelSpec.from_hf(folder, model_type=model_type)
        self._files: dict[str, SafetensorsFile] = {}
        for file in _open_files(folder):
            for twice in self._files.keys() & file.specs.keys():
                both = f"{twice}, in {self._files[twice].path.name} and {file.path.name}"
                raise BadInput("a tensor lies in two files", value=both, source=folder, remedy="Copy the model into an empty folder.")
            self._files |= dict.fromkeys(file.specs, file)
        expected = {name: shape for mcore in base_names(self.model) for name, shape in _hf_shapes_of(mcore, self.model)}
        # Small tied models are published with a copy of the embedding as lm_head.
        tied_copy = set() if self.model.untie_embeddings_and_output_weights else {"lm_head.weight"}
        check_names(self._files.keys() - tied_copy, expected, source=folder)
        for name, shape in expected.items():
            check_shape(name, self._spec(name).shape, shape, source=self._files[name].path)
        dtypes = {self._spec(name).dtype for name in expected}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else None

    def names(self) -> list[str]:
        return list(base_names(self.model))

    def make(self, name: str) -> Whole:
        """The whole mcore tensor, in the source's own dtype."""
        pieces = zip(hf_runs(name, self.model), hf_names(name), strict=True)
        return join(
            shape_of(name, self.model), [Piece(runs, self._spec(hf).dtype, partial(self._files[hf].read, hf)) for runs, hf in pieces]
        )

    def parts(self, name: str) -> list[Part]:
        runs = hf_runs(name, self.model)
        return [Part(f"{self._files[hf].path.name}:{hf}", self._spec(hf), item) for hf, item in zip(hf_names(name), runs, strict=True)]

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


class WeightsPlan(NamedTuple):
    """Everything about ``model*.safetensors`` but its values.

    Attributes:
        files: file -> its tensors.
    """

    files: dict[str, dict[str, TensorSpec]]
    jobs: list[Job]


def plan_weights(model: ModelSpec, *, dtype: ElementType, max_shard_bytes: int = MAX_SHARD_BYTES) -> WeightsPlan:
    """Files as transformers' ``save_pretrained`` cuts them."""
    shapes = {name: shape for mcore in base_names(model) for name, shape in _hf_shapes_of(mcore, model)}
    specs = {name: TensorSpec(dtype, shapes[name]) for name in _module_order(model)}
    shards = _plan_shards(specs, max_shard_bytes)
    file_of = {name: file for file, names in shards.items() for name in names}
    jobs = [
        Job(
            (mcore,),
            tuple(Part(f"{file_of[hf]}:{hf}", specs[hf], runs) for hf, runs in zip(hf_names(mcore), hf_runs(mcore, model), strict=True)),
        )
        for mcore in base_names(model)
    ]
    return WeightsPlan({file: {name: specs[name] for name in names} for file, names in shards.items()}, jobs)


def write_weights(
    folder: Path,
    source: Source,
    *,
    model: ModelSpec,
    dtype: Dtype | ElementType | torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    recorder: Recorder | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write ``model*.safetensors`` (and the index of several) as transformers' ``save_pretrained`` does.

    Args:
        source: makes whole mcore tensors of ``dtype``, without LoRA. The vocabulary's may have padding rows.
        progress: called with the bytes of each mcore tensor written.
    """
    plan = plan_weights(model, dtype=element_type(dtype), max_shard_bytes=max_shard_bytes)
    write_planned(folder, plan, source, recorder=recorder, progress=progress)
    if len(plan.files) > 1:
        specs = [spec for tensors in plan.files.values() for spec in tensors.values()]
        total = {"total_parameters": sum(spec.numel for spec in specs), "total_size": sum(spec.nbytes for spec in specs)}
        index = {"metadata": total, "weight_map": {name: file for file, tensors in plan.files.items() for name in tensors}}
        write_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def write_planned(
    folder: Path,
    plan: WeightsPlan,
    source: Source,
    *,
    recorder: Recorder | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write the safetensors files of ``plan``."""
    require_space(folder, sum(spec.nbytes for tensors in plan.files.values() for spec in tensors.values()))
    buffers = Buffers()
    with ExitStack() as stack:
        writers = {
            file: stack.enter_context(closing(SafetensorsWriter(folder / file, tensors, buffers))) for file, tensors in plan.files.items()
        }

        def open_sink(part: Part) -> Sink:
            file, _, name = part.ref.partition(":")
            return writers[file].open(name)

        transfer(plan.jobs, source, open_sink=open_sink, recorder=recorder, progress=progress)
        for writer in writers.values():
            writer.finish()


def _module_order(model: ModelSpec) -> list[str]:
    if model.num_experts is None:
        mlp = [f"mlp.{name}" for name in _MLP_ORDER]
    else:
        mlp = ["mlp.gate", *(f"mlp.experts.{expert}.{name}" for expert in range(model.num_experts) for name in _MLP_ORDER)]
    order = (*_ATTENTION_ORDER, *mlp, *_NORM_ORDER)
    layers = [f"model.layers.{layer}.{module}.weight" for layer in range(model.num_layers) for module in order]
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


def write_config(folder: Path, *, base: Path, dtype: ElementType) -> None:
    """The base model's config.json with the dtype of the weights, generation_config.json and tokenizer files."""
    config = read_json(base / "config.json", what="the base model's config.json")
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    if all(config.get(key) == dtype.name for key in keys):
        _copy(base / "config.json", folder / "config.json")
    else:
        changed: dict[str, Any] = {**config, **dict.fromkeys(keys, dtype.name)}
        write_atomically(folder / "config.json", json.dumps(changed, indent=2, ensure_ascii=False) + "\n")
    for file in ("generation_config.json", *TOKENIZER_FILES):
        if (base / file).is_file():
            _copy(base / file, folder / file)


def _copy(file: Path, to: Path) -> None:
    """Onto the disk: the folder is published by a rename, which may outlive a power cut that the bytes do not."""
    shutil.copyfile(file, to)
    sync(to)
