"""Any shape in any layout: convert and back is the identity, resharding there and back too, and certificates agree."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from qwen3_ops.model import ModelSpec  # noqa: E402
from qwen3_ops.native.checkpoint.hf import write_weights  # noqa: E402
from qwen3_ops.native.checkpoint.mcore import open_checkpoint  # noqa: E402
from qwen3_ops.native.checkpoint.mcore_writer import StateSource  # noqa: E402
from qwen3_ops.native.checkpoint.modules import base_names, shape_of  # noqa: E402
from qwen3_ops.native.checkpoint.verify import verify  # noqa: E402

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def models(draw: st.DrawFn) -> dict[str, object]:
    """config.json of a Qwen3 that tensor parallelism of 2 can cut."""
    groups = 2 * draw(st.integers(1, 2))
    experts = draw(st.sampled_from([None, None, 2, 4]))
    config: dict[str, object] = {
        "model_type": "qwen3" if experts is None else "qwen3_moe",
        "num_hidden_layers": draw(st.integers(1, 5)),
        "hidden_size": draw(st.integers(1, 9)),
        "num_attention_heads": groups * draw(st.integers(1, 3)),
        "num_key_value_heads": groups,
        "head_dim": 2 * draw(st.integers(1, 3)),
        "intermediate_size": 2 * draw(st.integers(1, 5)),
        "vocab_size": draw(st.integers(1, 33)),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 64,
        "torch_dtype": draw(st.sampled_from(["bfloat16", "float16", "float32"])),
    }
    if experts is not None:
        config |= {"num_experts": experts, "moe_intermediate_size": 2 * draw(st.integers(1, 3)), "num_experts_per_tok": 1}
    return config


@st.composite
def layouts(draw: st.DrawFn, config: dict[str, object]) -> dict[str, object]:
    """Flags of a layout that fits ``config``."""
    layers, experts = int(str(config["num_hidden_layers"])), config.get("num_experts")
    flags: dict[str, object] = {"tp": draw(st.sampled_from([1, 2]))}
    if experts is not None:
        flags |= {"target_expert_parallel_size": draw(st.sampled_from([1, 2])), "model_type_hf": "qwen3-moe"}
        flags |= {"moe_grouped_gemm": ()} if draw(st.booleans()) else {"no_moe_grouped_gemm": ()}
    kind = draw(st.sampled_from(["even", "list", "no-op", "virtual", "no-op and virtual"]))
    if kind == "list" and layers > 1:
        cut = draw(st.integers(1, layers - 1))
        return {**flags, "pp": 2, "num_layer_list": f"{cut},{layers - cut}"}
    if kind == "no-op":
        positions = draw(st.lists(st.integers(0, 5), min_size=6 - layers, max_size=6 - layers, unique=True))
        return {**flags, "pp": draw(st.sampled_from([1, 2, 3])), "noop_layers": ",".join(map(str, positions))}
    if kind == "no-op and virtual":
        positions = draw(st.lists(st.integers(0, 7), min_size=8 - layers, max_size=8 - layers, unique=True))
        chunk = draw(st.sampled_from([1, 2]))
        return {**flags, "pp": 2, "noop_layers": ",".join(map(str, positions)), "num_layers_per_virtual_pipeline_stage": chunk}
    if kind == "virtual" and layers == 4:
        return {**flags, "pp": 2, "num_layers_per_virtual_pipeline_stage": 1}
    return {**flags, "pp": draw(st.sampled_from([size for size in range(1, layers + 1) if layers % size == 0]))}


def write_model(folder: Path, config: dict[str, object]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    model = ModelSpec.from_hf(folder, model_type=config["model_type"])
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, str(config["torch_dtype"]))
    state = {name: torch.randn(shape_of(name, model), generator=generator).to(dtype) for name in base_names(model)}
    write_weights(folder, StateSource(state, dtype), model=model, dtype=dtype)


@FEW
@given(st.data())
def test_there_and_back(convert, data):
    config = data.draw(models())
    first, second = data.draw(layouts(config)), data.draw(layouts(config))
    kind = {"model_type_hf": first["model_type_hf"]} if "model_type_hf" in first else {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "hf", config)
        convert(
            load="hf",
            save="mg",
            load_dir=folder / "hf",
            save_dir=folder / "a",
            **{k: v for k, v in first.items() if k != "no_moe_grouped_gemm"},
        )
        convert(load="mg", save="mg", load_dir=folder / "a", save_dir=folder / "b", **second)
        convert(load="mg", save="mg", load_dir=folder / "b", save_dir=folder / "c", **first)
        convert(load="mg", save="hf", load_dir=folder / "c", save_dir=folder / "d", hf_cfg_dir=folder / "hf", **kind)
        assert (folder / "d" / "mg2hf" / "model.safetensors").read_bytes() == (folder / "hf" / "model.safetensors").read_bytes()
        a, c = open_checkpoint(folder / "a"), open_checkpoint(folder / "c")
        assert (a.layout, a.grouped_gemm) == (c.layout, c.grouped_gemm)
        before, after = a.state(), c.state()
        assert list(before) == list(after)
        # mg to mg keeps padding rows of the vocabulary that another tensor-parallel size needed, as the real tool does
        assert all(torch.equal(before[name], after[name][: len(before[name])]) for name in before)
        for each in "abcd":
            assert [claim.verdict for claim in verify(folder / each)] == ["proven"] * 3
