"""Equality with MindSpeed-LLM 2.1.0's own output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from qwen3_ops.native.checkpoint.dtypes import bfloat16
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint
from qwen3_ops.native.checkpoint.rank_file import RankFile
from qwen3_ops.native.checkpoint.unpickle import ModelType

TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("case", "model", "tp", "pp"),
    [
        ("mg_tp2pp4", "hf_tiny", 2, 4),
        ("mg_tp1pp1", "hf_tiny", 1, 1),
        ("mg_tp2pp2", "hf_tiny", 2, 2),
        ("mg_tied_tp2pp2", "hf_tiny_tied", 2, 2),
    ],
)
def test_hf_to_mg(case, model, tp, pp, golden, tmp_path, convert, manifest, assert_equals_manifest):
    convert(load="hf", save="mg", load_dir=golden / "ckpt" / model, save_dir=tmp_path, tp=tp, pp=pp, params_dtype="bf16")
    assert_equals_manifest(tmp_path, manifest(case))


UNEVEN = {
    "mg_tp2pp2_vpp1": ("hf_tiny", {"tp": 2, "pp": 2, "num_layers_per_virtual_pipeline_stage": 1}),
    "mg_tp1pp3_list121": ("hf_tiny", {"tp": 1, "pp": 3, "num_layer_list": "1,2,1"}),
    "mg_tp1pp3_noop25": ("hf_tiny", {"tp": 1, "pp": 3, "noop_layers": "2,5"}),
    "mg_moe_tp2pp2ep2": ("hf_moe_tiny", {"tp": 2, "pp": 2, "target_expert_parallel_size": 2, "model_type_hf": "qwen3-moe"}),
    "mg_moe_gemm_tp1pp2ep2": (
        "hf_moe_tiny",
        {"tp": 1, "pp": 2, "target_expert_parallel_size": 2, "model_type_hf": "qwen3-moe", "moe_grouped_gemm": ()},
    ),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_uneven_and_expert_layouts(case, golden, tmp_path, convert, manifest, assert_equals_manifest):
    model, layout = UNEVEN[case]
    hf = golden / "ckpt" / model
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", params_dtype="bf16", **layout)
    assert_equals_manifest(tmp_path / "mg", manifest(case))
    for file, rank in manifest(case)["ranks"].items():
        args = RankFile(tmp_path / "mg" / file).args
        expected = {**rank["args"], "rotary_base": 1_000_000, "params_dtype": bfloat16}
        assert {name: getattr(args, name) for name in expected} == expected
    kind = layout.get("model_type_hf", "qwen3")
    convert(load="mg", save="hf", load_dir=tmp_path / "mg", save_dir=tmp_path / "hf", hf_cfg_dir=hf, model_type_hf=kind)
    assert sha256(tmp_path / "hf" / "mg2hf" / "model.safetensors") == sha256(hf / "model.safetensors")


def test_args_are_what_megatron_reads(golden, tmp_path, convert, manifest):
    convert(load="hf", save="mg", load_dir=golden / "ckpt" / "hf_tiny", save_dir=tmp_path, tp=2, pp=4)
    for file, rank in manifest("mg_tp2pp4")["ranks"].items():
        args = RankFile(tmp_path / file).args
        assert args.model_type is ModelType.encoder_or_decoder
        expected = {**rank["args"], "rotary_base": 1_000_000, "params_dtype": bfloat16}  # the real tool leaves 10000 there
        assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(("case", "model"), [("mg_tp2pp4", "hf_tiny"), ("mg_tp1pp1", "hf_tiny"), ("mg_tied_tp2pp2", "hf_tiny_tied")])
def test_mg_to_hf_is_byte_identical(case, model, golden, tmp_path, convert):
    hf = golden / "ckpt" / model
    convert(load="mg", save="hf", load_dir=golden / "ckpt" / case, save_dir=tmp_path, hf_cfg_dir=hf, tp=1, pp=1, params_dtype="bf16")
    assert sorted(path.name for path in (tmp_path / "mg2hf").iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (tmp_path / "mg2hf" / name).read_bytes() == (hf / name).read_bytes()


@pytest.mark.parametrize(("layout", "tp", "pp"), [("tp2pp4", 2, 4), ("tp1pp1", 1, 1)])
@pytest.mark.parametrize("given", [{}, {"lora_r": 16, "lora_alpha": 32, "lora_target_modules": TARGETS}])
def test_lora_merge_to_mg(layout, tp, pp, given, golden, tmp_path, convert, manifest, assert_equals_manifest):
    ckpt = golden / "ckpt"
    given = {**given, "load_dir": ckpt / f"mg_{layout}", "lora_load": ckpt / f"lora_only_{layout}"}
    outcome = convert(load="mg", save="mg", save_dir=tmp_path, tp=tp, pp=pp, **given)
    assert_equals_manifest(tmp_path, manifest(f"merged_mg_{layout}"))
    assert outcome.facts["merged_lora"] == {"r": 16, "alpha": 32, "target_modules": sorted(TARGETS)}
    assert open_checkpoint(tmp_path).args.lora_target_modules == []


@pytest.mark.parametrize("layout", ["tp2pp4", "tp1pp1"])
def test_lora_merge_to_hf(layout, golden, tmp_path, convert):
    ckpt = golden / "ckpt"
    convert(
        load="mg", save="hf", load_dir=ckpt / f"mg_{layout}", lora_load=ckpt / f"lora_only_{layout}", save_dir=tmp_path,
        hf_cfg_dir=ckpt / "hf_tiny",
    )  # fmt: skip
    merged = "b7a69d3148e8176631853c00f5feda9bf33fc9bd36531fd4a39fb677ec31c821"
    assert sha256(tmp_path / "mg2hf" / "model.safetensors") == merged


@pytest.fixture
def full_lora(golden, tmp_path) -> Path:
    """Base and LoRA in one checkpoint, as training saves without ``--lora-ckpt-filter``."""
    base, adapter = open_checkpoint(golden / "ckpt" / "mg_tp2pp4"), open_checkpoint(golden / "ckpt" / "lora_only_tp2pp4")
    lora = adapter.full_state_dict()
    modules = {name.rpartition(".lora_A")[0] for name in lora if ".lora_A." in name}
    state = {
        (f"{name.removesuffix('.weight')}.base_layer.weight" if name.removesuffix(".weight") in modules else name): tensor
        for name, tensor in base.full_state_dict().items()
    }
    extra = {name: getattr(adapter.args, name) for name in ("lora_alpha", "lora_target_modules")}
    write_checkpoint(
        tmp_path / "full", iteration=100, state=state | lora, model=base.model, layout=base.layout, dtype="bf16", extra_args=extra
    )
    return tmp_path / "full"


def test_lora_checkpoint_with_its_base(full_lora, manifest, assert_equals_manifest):
    assert_equals_manifest(full_lora, manifest("lora_full_tp2pp4"))
    args = open_checkpoint(full_lora).args
    assert (args.lora_r, args.lora_alpha, args.lora_target_modules, args.lora_ckpt_filter) == (16, 32, list(TARGETS), False)


def test_lora_checkpoint_without_its_base(golden, tmp_path, full_lora, manifest, assert_equals_manifest):
    full = open_checkpoint(full_lora)
    write_checkpoint(
        tmp_path / "only", iteration=100, state=full.full_state_dict(), model=full.model, layout=full.layout, dtype="bf16",
        extra_args={"lora_alpha": 32, "lora_target_modules": list(TARGETS)}, lora_only=True,
    )  # fmt: skip
    assert_equals_manifest(tmp_path / "only", manifest("lora_only_tp2pp4"))


@pytest.mark.parametrize("as_base", [True, False])
def test_merging_a_lora_checkpoint_with_its_base(as_base, golden, tmp_path, convert, full_lora, manifest):
    load = {"load_dir": full_lora} if as_base else {"load_dir": golden / "ckpt" / "mg_tp2pp4", "lora_load": full_lora}
    convert(load="mg", save="mg", save_dir=tmp_path / "out", **load)
    merged = open_checkpoint(tmp_path / "out")
    assert merged.iteration == (100 if as_base else 1)  # the base's own
    convert(load="mg", save="hf", load_dir=tmp_path / "out", save_dir=tmp_path / "hf", hf_cfg_dir=golden / "ckpt" / "hf_tiny")
    assert sha256(tmp_path / "hf" / "mg2hf" / "model.safetensors").startswith("b7a69d3148e8")


def test_flags_of_the_runbook(golden):
    from qwen3_ops.native.checkpoint.flags import FLAGS

    for number in ("01_hf2mcore", "02_mcore2hf", "12_lora_merge_mcore2mcore", "13_lora_mcore2hf"):
        argv = json.loads((golden / "commands" / f"{number}.json").read_text())["argv"]
        FLAGS.parse(argv[argv.index("convert_ckpt.py") + 1 :])
