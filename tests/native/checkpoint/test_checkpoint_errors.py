"""Bad input: a clear error of the contract, and nothing written."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.native.checkpoint.dtypes import element_type
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker, write_checkpoint
from qwen3_ops.native.checkpoint.state import refuse_not_finite
from qwen3_ops.native.checkpoint.tensor_spec import as_bits

TRACKER = "latest_checkpointed_iteration.txt"
RANK = "iter_0000001/mp_rank_01_001/model_optim_rng.pt"


@pytest.fixture
def hf(make_hf) -> Path:
    return make_hf(layers=4, heads=4, groups=2)


@pytest.fixture
def mg(hf, tmp_path, convert) -> Path:
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2, pp=2)
    return tmp_path / "mg"


@pytest.fixture
def adapter(golden, tmp_path) -> Path:
    shutil.copytree(golden / "ckpt" / "lora_only_tp2pp4", tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(convert, out: Path, match: str, **flags) -> BadInput:
    with pytest.raises(BadInput, match=match) as caught:
        convert(save_dir=out, **flags)
    assert not out.exists() or not list(out.iterdir())
    return caught.value


def edit_weights(hf: Path, change) -> None:
    tensors = load_file(hf / "model.safetensors")
    change(tensors)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})


def test_truncated_rank_file(mg, tmp_path, convert):
    data = (mg / RANK).read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        (mg / RANK).write_bytes(data[:size])
        error = refused(convert, tmp_path / "out", "truncated or damaged", load="mg", save="mg", load_dir=mg)
        assert str(error.source).endswith(RANK)


def test_missing_rank_file(mg, tmp_path, convert):
    shutil.rmtree((mg / RANK).parent)
    refused(convert, tmp_path / "out", "a rank's file is missing", load="mg", save="mg", load_dir=mg)


def test_missing_tracker(mg, tmp_path, convert):
    (mg / TRACKER).unlink()
    assert read_tracker(mg) is None
    refused(convert, tmp_path / "out", "there is no checkpoint", load="mg", save="mg", load_dir=mg)


@pytest.mark.parametrize("text", ["", "0", "-3", "latest", "1.5", "9" * 5000])
def test_wrong_tracker(mg, text):
    (mg / TRACKER).write_text(text)
    with pytest.raises(BadInput, match="tracker"):
        read_tracker(mg)


def test_ranks_of_different_iterations(mg, hf, tmp_path, convert):
    checkpoint = open_checkpoint(mg)
    write_checkpoint(mg, iteration=5, state=checkpoint.state(), model=checkpoint.model, layout=checkpoint.layout, dtype="bf16")
    shutil.copy(mg / RANK, mg / RANK.replace("0000001", "0000005"))
    refused(convert, tmp_path / "out", "different iterations", load="mg", save="mg", load_dir=mg)


@pytest.mark.parametrize(
    ("tp", "pp", "what"), [(1, 3, "4 layers"), (4, 1, "2 key/value groups"), (8, 1, "4 attention heads"), (3, 1, "heads")]
)
def test_layout_that_does_not_divide(hf, tmp_path, convert, tp, pp, what):
    refused(convert, tmp_path / "out", what, load="hf", save="mg", load_dir=hf, tp=tp, pp=pp)


@pytest.mark.parametrize(("kind", "what"), [("llama2", "only Qwen3"), ("qwen3-moe", "model_type must be qwen3_moe")])
def test_wrong_model_type(hf, tmp_path, convert, kind, what):
    refused(convert, tmp_path / "out", what, load="hf", save="mg", load_dir=hf, model_type_hf=kind)


def test_checkpoint_of_another_model_type(mg, tmp_path, convert):
    refused(convert, tmp_path / "out", "another model type", load="mg", save="mg", load_dir=mg, model_type_hf="qwen3-moe")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"pp": 2, "num_layer_list": "1,2"}, "every pipeline stage its layers"),
        ({"pp": 2, "num_layer_list": "4,0"}, "every pipeline stage its layers"),
        ({"pp": 3, "num_layer_list": "1,3"}, "every pipeline stage its layers"),
        ({"pp": 2, "num_layer_list": "1,3", "noop_layers": "0"}, "neither virtual stages nor no-op"),
        ({"pp": 2, "num_layer_list": "1,3", "num_layers_per_virtual_pipeline_stage": 1}, "neither virtual stages nor no-op"),
        ({"pp": 2, "noop_layers": "2,2"}, "different positions"),
        ({"pp": 2, "noop_layers": "4,6"}, "different positions"),
        ({"pp": 2, "noop_layers": "4"}, "5 layers can not be divided"),
        ({"pp": 1, "num_layers_per_virtual_pipeline_stage": 2}, "virtual stages need several"),
        ({"pp": 2, "num_layers_per_virtual_pipeline_stage": 2}, "virtual stages need several"),
        ({"pp": 1, "num_layers_per_virtual_pipeline_stage": 3}, "virtual stages must divide"),
        ({"target_expert_parallel_size": 2}, "no experts to divide"),
        ({"moe_grouped_gemm": ()}, "no experts to group"),
        ({"num_experts": 4}, "another number of experts"),
    ],
    ids=str,
)
def test_layouts_that_are_refused(flags, what, hf, tmp_path, convert):
    refused(convert, tmp_path / "out", what, load="hf", save="mg", load_dir=hf, **flags)


def test_config_of_another_model(hf, tmp_path, convert):
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    refused(convert, tmp_path / "out", "model_type must be qwen3", load="hf", save="mg", load_dir=hf)


def test_missing_tensor(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight"))
    error = refused(convert, tmp_path / "out", "tensors are missing", load="hf", save="mg", load_dir=hf)
    assert "model.layers.2.mlp.up_proj.weight" in str(error)


def test_unknown_tensor(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(3)}))
    refused(convert, tmp_path / "out", "tensors are unknown", load="hf", save="mg", load_dir=hf)


def test_wrong_shape(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3, dtype=torch.bfloat16)}))
    error = refused(convert, tmp_path / "out", "wrong shape", load="hf", save="mg", load_dir=hf)
    assert "model.norm.weight is [3], not [12]" in str(error)


def test_nan(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors["model.layers.3.mlp.up_proj.weight"][0, 0].fill_(float("nan")))
    refused(convert, tmp_path / "out", "weights hold NaN", load="hf", save="mg", load_dir=hf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("value", "what"), [(math.nan, "NaN"), (-math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])
def test_values_that_are_not_finite(dtype, value, what):
    weights = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights[1, :2] = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min])
    refuse_not_finite("w", element_type(dtype), 10, as_bits(weights), source="here")
    weights[2, 3] = weights[4, 6] = value
    with pytest.raises(BadInput, match=f"weights hold {what}") as caught:
        refuse_not_finite("w", element_type(dtype), 10, as_bits(weights), source="here")
    assert caught.value.value == "w, 2 in rows 10 to 14"


def test_infinity(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors["lm_head.weight"][0, 0].fill_(-math.inf))
    refused(convert, tmp_path / "out", "weights hold infinity", load="hf", save="mg", load_dir=hf)


def test_several_dtypes_need_a_choice(hf, tmp_path, convert):
    edit_weights(hf, lambda tensors: tensors.update({"model.norm.weight": torch.ones(12)}))
    refused(convert, tmp_path / "out", "several dtypes", load="hf", save="mg", load_dir=hf)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "out", params_dtype="bf16")


def test_truncated_and_missing_safetensors(hf, tmp_path, convert):
    data = (hf / "model.safetensors").read_bytes()
    for size in (0, 5, 100, len(data) - 1):
        (hf / "model.safetensors").write_bytes(data[:size])
        refused(convert, tmp_path / "out", "truncated or damaged", load="hf", save="mg", load_dir=hf)
    (hf / "model.safetensors").unlink()
    refused(convert, tmp_path / "out", "no safetensors", load="hf", save="mg", load_dir=hf)


def test_damaged_safetensors_headers(hf, tmp_path, convert):
    """What the library itself refuses: tensors that overlap, leave gaps or bytes over, and headers that are no table."""
    data = (hf / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    begin, end = header["model.norm.weight"]["data_offsets"]
    changes = [
        json.dumps({**header, "model.norm.weight": {**header["model.norm.weight"], "data_offsets": offsets}}).encode()
        for offsets in ([0, end - begin], [begin - 2, end - 2], [begin + 10**9, end + 10**9], [-2, end - begin - 2])
    ]
    for text in (*changes, b"[]", b"{", b"[" * 100_000, b"\xff\xfe"):
        (hf / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        refused(convert, tmp_path / "out", "truncated or damaged", load="hf", save="mg", load_dir=hf)
    (hf / "model.safetensors").write_bytes(data + b"xx")
    refused(convert, tmp_path / "out", "truncated or damaged", load="hf", save="mg", load_dir=hf)


def test_index_that_leaves_its_folder(hf, tmp_path, convert):
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}))
    refused(convert, tmp_path / "out", "names no files of its folder", load="hf", save="mg", load_dir=hf)


def test_export_beside_the_base_weights(mg, hf, convert):
    before = sorted(hf.iterdir())
    with pytest.raises(BadInput, match="base weights are read-only") as caught:
        convert(load="mg", save="hf", load_dir=mg, save_dir=hf)
    assert "--save-dir NEW --hf-cfg-dir OLD" in str(caught.value)
    assert sorted(hf.iterdir()) == before


def test_export_with_the_config_of_another_model(mg, make_hf, tmp_path, convert):
    for name, other in (("num_layers", {"layers": 2}), ("untie", {"tied": True, "layers": 4}), ("vocab", {"vocab": 99, "layers": 4})):
        folder = make_hf(**other, name=name)
        refused(convert, tmp_path / "out", "--hf-cfg-dir", load="mg", save="hf", load_dir=mg, hf_cfg_dir=folder)


@pytest.mark.parametrize(
    "flags",
    [
        {"load": "hf", "save": "hf"},
        {"load": "hf", "save": "mg", "lora_r": 8},
        {"load": "mg", "save": "mg", "make_vocab_size_divisible_by": 8},
        {"load": "mg", "save": "hf", "tp": 2},
        {"load": "mg", "save": "mg", "params_dtype": "int8"},
        {"load": "mg", "save": "mg", "num_layer_list": "1,,3"},
        {"load": "mg", "save": "mg", "noop_layers": "-1"},
        {"load": "mg", "save": "mg", "moe_grouped_gemm": (), "no_moe_grouped_gemm": ()},
        {"load": "mg", "save": "hf", "num_layer_list": "1,3"},
        {"load": "mg", "save": "hf", "target_expert_parallel_size": 2},
        {"load": "mg", "save": "mg", "save_lora_to_hf": ()},
        {"load": "hf", "save": "mg", "load_dir_extra": ("x",)},
        {"load": "mg", "save": "mg", "lora_load_extra": ("x",)},
        {"load": "mg", "save": "mg", "spec": ("mindspeed_llm.tasks.models.spec.other", "layer_spec")},
    ],
    ids=str,
)
def test_flags_that_are_refused(flags, mg, tmp_path, convert):
    refused(convert, tmp_path / "out", "command line", load_dir=mg, **flags)


def merge_golden(golden, adapter, **flags):
    return {"load": "mg", "save": "mg", "load_dir": golden / "ckpt" / "mg_tp2pp4", "lora_load": adapter, **flags}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"lora_r": 8}, "16 by its tensors, 8 by --lora-r"),
        ({"lora_alpha": 16}, "32 by its args, 16 by --lora-alpha"),
        ({"lora_target_modules": ["linear_qkv"]}, "linear_qkv by --lora-target-modules"),
    ],
)
def test_lora_flags_that_disagree(flags, said, golden, adapter, tmp_path, convert):
    error = refused(convert, tmp_path / "out", "in doubt", **merge_golden(golden, adapter, **flags))
    assert said in str(error)


def test_adapter_without_a_tracker(golden, adapter, tmp_path, convert):
    (adapter / TRACKER).unlink()
    refused(convert, tmp_path / "out", "there is no checkpoint", **merge_golden(golden, adapter))


def test_adapter_of_another_layout(golden, tmp_path, convert):
    refused(convert, tmp_path / "out", "another layout", **merge_golden(golden, golden / "ckpt" / "lora_only_tp1pp1"))


def test_adapter_without_lora(golden, tmp_path, convert):
    refused(convert, tmp_path / "out", "no LoRA weights", **merge_golden(golden, golden / "ckpt" / "mg_tp2pp4"))


def test_adapter_as_its_own_base(adapter, tmp_path, convert):
    refused(convert, tmp_path / "out", "without its base", load="mg", save="mg", load_dir=adapter)


def test_lora_flags_without_lora(mg, tmp_path, convert):
    refused(convert, tmp_path / "out", "no LoRA", load="mg", save="mg", load_dir=mg, lora_r=16)


def test_untrained_adapter(golden, adapter, tmp_path, convert):
    checkpoint = open_checkpoint(adapter)
    state = {name: tensor * 0 if ".lora_B." in name else tensor for name, tensor in checkpoint.full_state_dict().items()}
    write_checkpoint(
        adapter, iteration=200, state=state, model=checkpoint.model, layout=checkpoint.layout, dtype="bf16",
        extra_args={"lora_alpha": 32}, lora_only=True,
    )  # fmt: skip
    refused(convert, tmp_path / "out", "changes nothing", **merge_golden(golden, adapter))


def test_nan_in_an_adapter(golden, adapter, tmp_path, convert):
    """The adapter is named, not the base."""
    checkpoint = open_checkpoint(adapter)
    state = {name: tensor.clone() for name, tensor in checkpoint.full_state_dict().items()}
    state["decoder.layers.1.mlp.linear_fc2.lora_B.default.weight"][3, 0] = float("nan")
    write_checkpoint(
        adapter, iteration=100, state=state, model=checkpoint.model, layout=checkpoint.layout, dtype="bf16",
        extra_args={"lora_alpha": 32}, lora_only=True,
    )  # fmt: skip
    error = refused(convert, tmp_path / "out", "weights hold NaN", **merge_golden(golden, adapter))
    assert error.source == adapter


def test_lora_alpha_from_the_manifest(golden, adapter, tmp_path, convert, monkeypatch):
    """An adapter whose args name no targets says nothing of alpha: its manifest does."""
    from qwen3_ops.native.checkpoint import lora

    checkpoint = open_checkpoint(adapter)
    checkpoint.args.lora_target_modules = []
    with pytest.raises(BadInput, match="lora_alpha of the adapter is not known"):
        lora.settings_of(checkpoint)
    monkeypatch.setattr(lora, "facts_of", lambda manifest: {"lora_alpha": 64})
    assert lora.settings_of(checkpoint).scale == 4.0
    with pytest.raises(BadInput, match="64 by its manifest, 32 by --lora-alpha"):
        lora.settings_of(checkpoint, given_alpha=32)


def test_writing_fails_without_a_trace(mg, tmp_path):
    """A state that breaks half-way leaves neither an iteration nor a tracker."""
    checkpoint = open_checkpoint(mg)
    state = dict(checkpoint.state())
    state["output_layer.weight"] = state["output_layer.weight"][1:]
    with pytest.raises(BadInput, match="wrong shape"):
        write_checkpoint(tmp_path / "run", iteration=3, state=state, model=checkpoint.model, layout=ParallelLayout(), dtype="bf16")
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(BadInput, match="missing"):
        write_checkpoint(tmp_path / "run", iteration=3, state={}, model=checkpoint.model, layout=ParallelLayout(), dtype="bf16")


@pytest.mark.parametrize("load", ["hf", "mg"])
def test_values_that_the_wanted_dtype_can_not_hold(load, hf, tmp_path, convert):
    """bf16 reaches 3e38, fp16 65504: what is finite before must be finite after."""
    edit_weights(hf, lambda tensors: tensors["model.norm.weight"][3].fill_(1e5))
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    folder = hf if load == "hf" else tmp_path / "mg"
    error = refused(convert, tmp_path / "out", "weights hold infinity", load=load, save="mg", load_dir=folder, params_dtype="fp16")
    assert "decoder.final_layernorm.weight" in str(error)
    assert "too large for float16" in str(error)


def test_tensor_in_two_files(make_hf, tmp_path, convert):
    """Which of them is meant? An older download may lie beside a newer one."""
    hf = make_hf(files=2)
    first, second = sorted(hf.glob("*.safetensors"))
    save_file({**load_file(second), "lm_head.weight": load_file(first)["lm_head.weight"] + 1}, second)
    error = refused(convert, tmp_path / "out", "lies in two files", load="hf", save="mg", load_dir=hf)
    assert f"lm_head.weight, in {first.name} and {second.name}" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"num_key_value_heads": 0}, {"num_attention_heads": 0, "head_dim": None}, {"hidden_size": -1}, {"vocab_size": 0}, {"rope_theta": "x"},
        {"rope_theta": math.nan}, {"rope_theta": math.inf}, {"rope_theta": None}, {"rope_parameters": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_config_with_a_wrong_value(change, hf, tmp_path, convert):
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | change))
    error = refused(convert, tmp_path / "out", "config.json|rope_parameters", load="hf", save="mg", load_dir=hf)
    assert error.source == hf / "config.json"


def test_config_of_a_hundred_thousand_levels(hf, tmp_path, convert):
    (hf / "config.json").write_text("[" * 100_000)
    refused(convert, tmp_path / "out", "can not be read", load="hf", save="mg", load_dir=hf)


@pytest.mark.parametrize(
    ("entry", "place", "value"),
    [
        ("data.pkl", "<6xH", 255),  # version needed
        ("data.pkl", "<8xH", 1),  # encrypted
        ("data.pkl", "<8xH", 1 << 5),  # a patch
        ("data.pkl", "<20xLL", 1 << 30),  # bytes
        ("data.pkl", "<42xL", 1 << 30),  # offset
        ("data/1", "<42xL", 1 << 30),  # of a weight: it is not looked at before the weight is read
    ],
)
def test_damaged_directory_of_a_rank_file(entry, place, value, mg, tmp_path, convert):
    """zipfile has many ways to say so."""
    data = bytearray((mg / RANK).read_bytes())
    start = data.rindex(f"model_optim_rng/{entry}".encode()) - 46
    assert data[start : start + 4] == b"PK\1\2"
    skip, kinds = place[1:].split("x")
    struct.pack_into(f"<{kinds}", data, start + int(skip), *[value] * len(kinds))
    (mg / RANK).write_bytes(data)
    refused(convert, tmp_path / "out", "truncated or damaged", load="mg", save="mg", load_dir=mg)
