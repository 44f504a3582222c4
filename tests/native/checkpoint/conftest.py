"""Conversions as a user starts them, and Hugging Face folders of any shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.flags import FLAGS
from qwen3_ops.native.checkpoint.verb import run
from qwen3_ops.verbs import Context, Outcome

Convert = Callable[..., Outcome]


@pytest.fixture
def convert() -> Convert:
    """``convert(load="hf", save="mg", load_dir=..., save_dir=..., tp=2, lora_r=16)``."""

    def call(*, load: str, save: str, tp: int | None = None, pp: int | None = None, **flags: Any) -> Outcome:
        argv = ["--load-model-type", load, "--save-model-type", save]
        values = {"target_tensor_parallel_size": tp, "target_pipeline_parallel_size": pp, **flags}
        for name, value in values.items():
            if value is not None:
                items = value if isinstance(value, (list, tuple)) else [value]  # (): a switch
                argv += ["--" + name.replace("_", "-"), *map(str, items)]
        parsed, _ = FLAGS.parse(argv)
        return run(parsed, Context(events=Events()))

    return call


@pytest.fixture
def make_hf(tmp_path: Path) -> Callable[..., Path]:
    """A Hugging Face folder with random weights, written by the safetensors library itself."""

    def make(
        *, layers: int = 2, hidden: int = 12, heads: int = 4, groups: int = 2, head_dim: int = 6, ffn: int = 16, vocab: int = 24,
        tied: bool = False, dtype: torch.dtype = torch.bfloat16, seed: int = 0, files: int = 1, name: str = "hf",
    ) -> Path:  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        generator = torch.Generator().manual_seed(seed)
        q, kv = heads * head_dim, groups * head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
        if not tied:
            shapes["lm_head.weight"] = (vocab, hidden)
        for layer in range(layers):
            shapes |= {
                f"model.layers.{layer}.{module}.weight": shape
                for module, shape in {
                    "self_attn.q_proj": (q, hidden),
                    "self_attn.k_proj": (kv, hidden),
                    "self_attn.v_proj": (kv, hidden),
                    "self_attn.o_proj": (hidden, q),
                    "self_attn.q_norm": (head_dim,),
                    "self_attn.k_norm": (head_dim,),
                    "mlp.gate_proj": (ffn, hidden),
                    "mlp.up_proj": (ffn, hidden),
                    "mlp.down_proj": (hidden, ffn),
                    "input_layernorm": (hidden,),
                    "post_attention_layernorm": (hidden,),
                }.items()
            }
        tensors = {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}
        config = {
            "model_type": "qwen3", "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
            "num_key_value_heads": groups, "head_dim": head_dim, "intermediate_size": ffn, "vocab_size": vocab,
            "tie_word_embeddings": tied, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 64,
            "torch_dtype": str(dtype).removeprefix("torch."),
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        if files == 1:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            return folder
        weight_map = {}
        for number in range(files):
            file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
            part = {key: tensors[key] for key in sorted(tensors)[number::files]}
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return folder

    return make


@pytest.fixture(scope="session")
def manifest(golden: Path) -> Callable[[str], dict[str, Any]]:
    return lambda name: json.loads((golden / "ckpt" / "manifests" / f"{name}.json").read_text())


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.fixture(scope="session")
def assert_equals_manifest() -> Callable[[Path, dict[str, Any]], None]:
    """File names, tracker, keys in order, dtypes, shapes and bytes; read by torch itself."""

    def check(folder: Path, expected: dict[str, Any]) -> None:
        assert (folder / "latest_checkpointed_iteration.txt").read_bytes() == expected["tracker"].encode()
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.pt")} == set(expected["ranks"])
        for file, rank in expected["ranks"].items():
            content = torch_load(folder / file)
            assert list(content) == [key for key in rank["file_keys"] if key != "rng_state"]
            assert content["checkpoint_version"] == 3.0
            assert content["iteration"] == rank["scalars"]["iteration"]
            for chunk in (key for key in rank["file_keys"] if key.startswith("model")):
                found = {
                    key: value
                    if value is None
                    else {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "sha256": digest(value)}
                    for key, value in content[chunk].items()
                }
                assert list(found) == list(rank[chunk])
                assert found == rank[chunk]

    return check


def torch_load(path: Path) -> dict[str, Any]:
    """torch's own reader; a class stands for megatron's enum."""
    from argparse import Namespace

    class ModelType(tuple):
        def __new__(cls, *args: int) -> ModelType:
            return super().__new__(cls, args)

    with torch.serialization.safe_globals([Namespace, (ModelType, "megatron.core.enums.ModelType")]):
        return torch.load(path, weights_only=True, mmap=True)


@pytest.fixture(scope="session")
def read_with_torch() -> Callable[[Path], dict[str, Any]]:
    return torch_load
