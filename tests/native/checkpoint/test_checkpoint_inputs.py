"""Checkpoints as others write them: a training run, convert_ckpt_v2.py, several nodes; and disks as they are."""

from __future__ import annotations

import json
import pickle
import shutil
from argparse import Namespace
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.native.checkpoint import disk
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint
from qwen3_ops.native.checkpoint.verify import verify

TRACKER = "latest_checkpointed_iteration.txt"


def rewrite(folder: Path, read_with_torch, change) -> None:
    """Each rank's file written again by ``torch.save``, its content changed."""
    for path in folder.glob("iter_*/*/model_optim_rng.pt"):
        content = read_with_torch(path)
        for name in content:
            if name.startswith("model"):
                content[name] = {key: value if value is None else value.clone() for key, value in content[name].items()}
        args = dict(vars(content["args"]))
        args.pop("model_type")
        content["args"] = Namespace(**args)
        change(content)
        torch.save(content, path)


def exported(folder: Path, hf: Path, tmp_path: Path, convert, **flags) -> dict[str, torch.Tensor]:
    convert(load="mg", save="hf", load_dir=folder, save_dir=tmp_path / "exported", hf_cfg_dir=hf, **flags)
    return load_file(tmp_path / "exported" / "mg2hf" / "model.safetensors")


def assert_same(found, hf: Path) -> None:
    expected = load_file(hf / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def hf(make_hf) -> Path:
    return make_hf(layers=4, vocab=23)


def test_files_of_a_training_run(hf, tmp_path, convert, read_with_torch):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2, pp=2)

    def train(content):
        content["optimizer"] = {"optimizer": {"param_groups": [{"lr": 1e-6, "betas": (0.9, 0.95), "params": [0, 1]}], "state": {}}}
        content["opt_param_scheduler"] = {"max_lr": 1e-6, "num_steps": 8, "lr_decay_style": "cosine"}
        master = torch.zeros(7)
        master.tensor_model_parallel, master.partition_dim, master.partition_stride = True, 0, 1  # Megatron's marks
        parameter = torch.nn.Parameter(torch.zeros(3))
        parameter.allreduce = True
        content["optimizer"] = {
            "optimizer": content["optimizer"],
            "fp32_from_fp16_params": [[master], [parameter, torch.nn.Parameter(master)]],
        }
        content["fp32"] = {"exp_avg": torch.zeros(7), "step": torch.tensor(3.0)}
        content["args"].noop_layers = set()

    rewrite(tmp_path / "mg", read_with_torch, train)
    for rank in (tmp_path / "mg").glob("iter_*/*"):
        (rank / "distrib_optim.pt").write_bytes(pickle.dumps("never read"))
    assert_same(exported(tmp_path / "mg", hf, tmp_path, convert), hf)


def v2(content) -> None:
    """As convert_ckpt_v2.py of MindSpeed-LLM 2.2.0 keeps args: Hugging Face's names, no padded size, no extra states."""
    args = content["args"]
    kept = (
        "num_layers", "hidden_size", "num_attention_heads", "kv_channels", "norm_epsilon", "rotary_base", "vocab_size",
        "max_position_embeddings", "tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size",
        "num_layers_per_virtual_pipeline_stage", "num_layer_list",
    )  # fmt: skip
    fields = {name: getattr(args, name) for name in kept if getattr(args, name) is not None}
    if args.noop_layers:
        fields["noop_layers"] = ",".join(map(str, args.noop_layers))
    content["args"] = Namespace(
        **fields, num_key_value_heads=args.num_query_groups, intermediate_size=args.ffn_hidden_size,
        tie_word_embeddings=not args.untie_embeddings_and_output_weights, group_query_attention=False, torch_dtype="bfloat16",
    )  # fmt: skip
    for name in [name for name in content if name.startswith("model")]:
        content[name] = {key: value for key, value in content[name].items() if value is not None}
    content.pop("num_floating_point_operations_so_far")


@pytest.mark.parametrize(
    "layout",
    [{"tp": 1, "pp": 1}, {"tp": 2, "pp": 2, "num_layers_per_virtual_pipeline_stage": 1}, {"tp": 2, "pp": 3, "noop_layers": "2,5"}],
    ids=str,
)
def test_files_of_convert_ckpt_v2(layout, hf, tmp_path, convert, read_with_torch):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", **layout)
    rewrite(tmp_path / "mg", read_with_torch, v2)
    convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "v1", tp=1, pp=1)
    assert open_checkpoint(tmp_path / "v1").args.group_query_attention is True
    assert open_checkpoint(tmp_path / "v1").args.num_query_groups == 2
    assert_same(exported(tmp_path / "v1", hf, tmp_path, convert), hf)


def test_checkpoint_split_over_nodes(hf, tmp_path, convert):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2, pp=2)
    ranks = sorted((tmp_path / "mg" / "iter_0000001").iterdir())
    for number, part in enumerate((ranks[:1], ranks[1:2], ranks[2:])):
        for rank in part:
            shutil.copytree(rank, tmp_path / f"node{number}" / "iter_0000001" / rank.name)
    (tmp_path / "node2" / TRACKER).write_text("1")  # Megatron's last rank writes it
    nodes = [tmp_path / f"node{number}" for number in range(3)]
    found = exported(nodes[0], hf, tmp_path, convert, load_dir_extra=nodes[1:])
    assert_same(found, hf)
    assert [claim.verdict for claim in verify(tmp_path / "exported")] == ["proven"] * 3
    with pytest.raises(BadInput, match="a rank's file is missing"):
        convert(load="mg", save="mg", load_dir=nodes[2], load_dir_extra=[nodes[1]], save_dir=tmp_path / "out")
    (tmp_path / "node1" / TRACKER).write_text("2")
    with pytest.raises(BadInput, match="different iterations"):
        convert(load="mg", save="mg", load_dir=nodes[0], load_dir_extra=nodes[1:], save_dir=tmp_path / "out")


def test_tied_copy_that_differs(make_hf, tmp_path, convert):
    convert(load="hf", save="mg", load_dir=make_hf(tied=True), save_dir=tmp_path / "mg", tp=1, pp=2)
    checkpoint = open_checkpoint(tmp_path / "mg")
    state = {name: tensor + 1 for name, tensor in checkpoint.full_state_dict().items()}
    write_checkpoint(tmp_path / "other", iteration=1, state=state, model=checkpoint.model, layout=checkpoint.layout, dtype="bf16")
    last = "iter_0000001/mp_rank_00_001"
    shutil.rmtree(tmp_path / "mg" / last)
    shutil.copytree(tmp_path / "other" / last, tmp_path / "mg" / last)
    with pytest.raises(BadInput, match="tied output layer differs"):
        convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out", pp=1)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_disk_too_small(hf, tmp_path, convert, monkeypatch):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(Infrastructure, match="disk is too small") as caught:
        convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "out" / "deep")
    assert "are needed, 1e-06 GB are free" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(Infrastructure, match="disk is too small"):
        convert(load="mg", save="hf", load_dir=tmp_path / "mg", save_dir=tmp_path / "out", hf_cfg_dir=hf)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_dtype_under_either_name(hf, tmp_path, convert):
    """config.json of transformers 5 says ``dtype``; the real converter then doubles the size."""
    config = hf / "config.json"
    config.write_text(config.read_text().replace('"torch_dtype"', '"dtype"'))
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    assert_same(exported(tmp_path / "mg", hf, tmp_path, convert), hf)
    assert (tmp_path / "exported" / "mg2hf" / "model.safetensors").read_bytes() == (hf / "model.safetensors").read_bytes()


@pytest.mark.parametrize("layout", ["tp2pp4", "tp1pp1"])
def test_peft_adapter(layout, golden, tmp_path, convert):
    """The exported adapter on the base gives what the merged model gives, at any tensor-parallel size."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ckpt = golden / "ckpt"
    load = {
        "load": "mg",
        "save": "hf",
        "load_dir": ckpt / f"mg_{layout}",
        "lora_load": ckpt / f"lora_only_{layout}",
        "hf_cfg_dir": ckpt / "hf_tiny",
    }
    convert(**load, save_dir=tmp_path / "adapter", save_lora_to_hf=())
    convert(**load, save_dir=tmp_path / "merged", params_dtype="fp32", merge_precision="fp32")
    assert [claim.verdict for claim in verify(tmp_path / "adapter")] == ["proven", "not checked", "proven"]
    tokens = torch.arange(24).unsqueeze(0)
    logits = []
    for adapter in (tmp_path / "adapter" / "mg2hf", None):
        folder = ckpt / "hf_tiny" if adapter else tmp_path / "merged" / "mg2hf"
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter:
            model = peft.PeftModel.from_pretrained(model, adapter)
        with torch.no_grad():
            logits.append(model(tokens).logits)
    assert (logits[0] - logits[1]).abs().max() < 1e-5


def test_adapter_export_needs_lora(golden, tmp_path, convert):
    with pytest.raises(BadInput, match="no LoRA"):
        convert(load="mg", save="hf", load_dir=golden / "ckpt" / "mg_tp1pp1", save_dir=tmp_path / "out", save_lora_to_hf=())


def test_weights_of_two_dtypes(hf, tmp_path, convert, read_with_torch):
    """fp32 norms in a bf16 checkpoint are rounded, which no inverse undoes: that is no failure of the conversion."""
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    norm = "decoder.layers.0.input_layernorm.weight"

    def mix(content):
        content["model"][norm] = content["model"][norm].float() + 1e-6

    rewrite(tmp_path / "mg", read_with_torch, mix)
    convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out", tp=1)
    assert open_checkpoint(tmp_path / "out").full_state_dict()[norm].dtype == torch.bfloat16
    claims = verify(tmp_path / "out")
    assert [claim.verdict for claim in claims] == ["proven", "not checked", "proven"]
    assert "from float32 to bfloat16" in claims[1].detail


def test_quantized_weights(hf, tmp_path, convert, read_with_torch):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)

    def quantize(content):
        content["model"]["decoder.layers.0.mlp.linear_fc2.weight"] = torch.ones(12, 8, dtype=torch.int8)

    rewrite(tmp_path / "mg", read_with_torch, quantize)
    with pytest.raises(BadInput, match="dtype is not supported") as caught:
        convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out")
    assert caught.value.value == "decoder.layers.0.mlp.linear_fc2.weight is int8"


def test_args_that_only_a_stand_in_could_carry_on(hf, tmp_path, convert, read_with_torch):
    """What is not understood is left out of the next checkpoint: that one must be one that others read."""
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")

    def odd(content):
        loop = [1]
        loop.append(loop)
        more = {"space": Namespace(a=1), "arrays": [{"deep": np.zeros(3)}], "tensors": (torch.zeros(3),), "loop": loop}
        content["args"] = Namespace(**vars(content["args"]), **more, plain=[{"a": (1, 2.0, None)}, {3}], dtypes=[torch.float32])

    rewrite(tmp_path / "mg", read_with_torch, odd)
    convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out")
    args = read_with_torch(tmp_path / "out" / "iter_0000001" / "mp_rank_00" / "model_optim_rng.pt")["args"]
    assert (args.plain, args.dtypes) == ([{"a": (1, 2.0, None)}, {3}], [torch.float32])
    assert args.loop[1] is args.loop
    assert not {"space", "arrays", "tensors"} & vars(args).keys()
    open_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": "x"}, {"num_layers": []}, {"num_layers": 0}, {"num_query_groups": 0}, {"make_vocab_size_divisible_by": "x"},
        {"vocab_size": {}}, {"tensor_model_parallel_size": 0}, {"pipeline_model_parallel_size": -1}, {"expert_model_parallel_size": -1},
        {"virtual_pipeline_model_parallel_size": "x"}, {"noop_layers": 5}, {"noop_layers": "a"}, {"num_layer_list": [[1]]},
    ],
    ids=str,
)  # fmt: skip
def test_args_with_a_wrong_value(change, hf, tmp_path, convert, read_with_torch):
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    rewrite(tmp_path / "mg", read_with_torch, lambda content: vars(content["args"]).update(change))
    with pytest.raises(BadInput, match="args do not describe") as caught:
        open_checkpoint(tmp_path / "mg")
    assert str(caught.value.source).endswith("model_optim_rng.pt")


def test_dtype_under_both_names(hf, tmp_path, convert):
    """transformers reads one of them, we and older versions the other: an export sets both."""
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    exported(tmp_path / "mg", hf, tmp_path, convert, params_dtype="fp32")
    config = json.loads((tmp_path / "exported" / "mg2hf" / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == ("float32", "float32")
