"""Convert and back is the identity, for shapes and layouts that no golden case has."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qwen3_ops.layout import ParallelLayout
from qwen3_ops.native.checkpoint import dtypes
from qwen3_ops.native.checkpoint.hf import write_weights
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker, write_checkpoint
from qwen3_ops.native.checkpoint.merge import merge
from qwen3_ops.native.checkpoint.sharding import shard_runs
from qwen3_ops.native.checkpoint.whole import Piece, join

SHAPES = [
    {"layers": 4, "heads": 4, "groups": 4, "tp": 4, "pp": 2},
    {"layers": 3, "heads": 6, "groups": 2, "tp": 2, "pp": 3, "vocab": 25},
    {"layers": 2, "heads": 8, "groups": 2, "head_dim": 2, "ffn": 10, "tp": 2, "pp": 1, "tied": True},
    {"layers": 6, "heads": 5, "groups": 5, "hidden": 7, "ffn": 15, "tp": 5, "pp": 3, "tied": True, "vocab": 31},
    {"layers": 1, "heads": 3, "groups": 1, "tp": 1, "pp": 1, "files": 3},
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_hf_to_mg_to_hf(shape, dtype, tmp_path, make_hf, convert):
    tp, pp = shape["tp"], shape["pp"]
    hf = make_hf(**{name: value for name, value in shape.items() if name not in ("tp", "pp")}, dtype=dtype)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=tp, pp=pp)
    convert(load="mg", save="hf", load_dir=tmp_path / "mg", save_dir=tmp_path / "out", hf_cfg_dir=hf)
    if "files" not in shape:
        assert (tmp_path / "out" / "mg2hf" / "model.safetensors").read_bytes() == (hf / "model.safetensors").read_bytes()
    expected = {name: tensor for file in hf.glob("*.safetensors") for name, tensor in load_file(file).items()}
    found = load_file(tmp_path / "out" / "mg2hf" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_torch_is_not_imported_where_no_value_changes(tmp_path, make_hf):
    """Its import would take longer than a small conversion."""
    hf = make_hf()
    program = """
import sys
from pathlib import Path
from qwen3_ops.cli import app
folder = Path(sys.argv[1])
there = f"--load-model-type hf --save-model-type mg --load-dir {folder / 'hf'} --target-tensor-parallel-size 2 --save-dir {folder / 'mg'}"
back = f"--load-model-type mg --save-model-type hf --load-dir {folder / 'mg'} --hf-cfg-dir {folder / 'hf'} --save-dir {folder / 'out'}"
for flags in (there, back):
    app(["convert-ckpt", *flags.split()], standalone_mode=False)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert (tmp_path / "out" / "mg2hf" / "model.safetensors").read_bytes() == (hf / "model.safetensors").read_bytes()


def test_resharding_there_and_back(tmp_path, make_hf, convert):
    hf = make_hf(layers=4, heads=4, groups=4, vocab=23)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "a", tp=2, pp=2)
    convert(load="mg", save="mg", load_dir=tmp_path / "a", save_dir=tmp_path / "b", tp=4, pp=1)
    convert(load="mg", save="mg", load_dir=tmp_path / "b", save_dir=tmp_path / "c", tp=2, pp=2)
    first, last = open_checkpoint(tmp_path / "a"), open_checkpoint(tmp_path / "c")
    assert first.layout == last.layout
    before, after = first.state(padded=True), last.state(padded=True)
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "name", ["decoder.layers.0.mlp.linear_fc1.weight", "decoder.layers.3.self_attention.linear_proj.lora_A.default.weight"]
)
def test_assembling_undoes_cutting(name):
    bits = np.arange(24 * 8, dtype=np.uint32).reshape(24, 8)
    shards = [(runs, runs.take(bits)) for runs in shard_runs(name, (24, 8), 4)]
    assert [shard.size for _, shard in shards] == [48] * 4
    whole = join((24, 8), [Piece.of(*shard, dtypes.float32) for shard in shards])
    assert np.array_equal(whole.rows(0, 24).result, bits)


def test_linear_qkv_is_grouped(tmp_path, make_hf, convert):
    """2 groups of 2 query heads: rows are q0 q1 k0 v0 | q2 q3 k1 v1."""
    hf = make_hf(heads=4, groups=2, head_dim=3, layers=1)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    weights = load_file(hf / "model.safetensors")
    q, k, v = (weights[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv")
    rows = [q[0:6], k[0:3], v[0:3], q[6:12], k[3:6], v[3:6]]
    checkpoint = open_checkpoint(tmp_path / "mg")
    assert torch.equal(checkpoint.full_state_dict()["decoder.layers.0.self_attention.linear_qkv.weight"], torch.cat(rows))


def test_vocabulary_is_padded_with_its_last_row(tmp_path, make_hf, convert, read_with_torch):
    hf = make_hf(vocab=21)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2, make_vocab_size_divisible_by=4)
    last = read_with_torch(tmp_path / "mg" / "iter_0000001" / "mp_rank_01" / "model_optim_rng.pt")
    embedding = last["model"]["embedding.word_embeddings.weight"]
    original = load_file(hf / "model.safetensors")["model.embed_tokens.weight"]
    assert (last["args"].vocab_size, last["args"].padded_vocab_size) == (21, 24)
    assert torch.equal(embedding, torch.cat([original[12:], original[-1:].expand(3, -1)]))
    checkpoint = open_checkpoint(tmp_path / "mg")
    assert checkpoint.model.padded_vocab_size == 21
    assert torch.equal(checkpoint.full_state_dict()["embedding.word_embeddings.weight"], original)


def test_dtype_follows_the_source_and_can_be_changed(tmp_path, make_hf, convert, capsys):
    hf = make_hf(dtype=torch.float32)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "fp32")
    assert "no --params-dtype: the weights stay fp32" in capsys.readouterr().out
    assert open_checkpoint(tmp_path / "fp32").dtype == dtypes.float32
    convert(load="mg", save="hf", load_dir=tmp_path / "fp32", save_dir=tmp_path / "bf16", hf_cfg_dir=hf, params_dtype="bf16")
    out = tmp_path / "bf16" / "mg2hf"
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    original = load_file(hf / "model.safetensors")
    assert all(torch.equal(tensor, original[name].bfloat16()) for name, tensor in load_file(out / "model.safetensors").items())


def test_exported_folder_is_complete(tmp_path, make_hf, convert):
    hf = make_hf()
    for name in ("tokenizer.json", "tokenizer_config.json", "merges.txt", "README.md", "pytorch_model.bin"):
        (hf / name).write_text(name)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    convert(load="mg", save="hf", load_dir=tmp_path / "mg", save_dir=tmp_path / "out", hf_cfg_dir=hf)
    copied = {"tokenizer.json", "tokenizer_config.json", "merges.txt", "config.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "out" / "mg2hf").iterdir()} == copied


def test_large_models_are_written_in_shards(tmp_path, make_hf, convert):
    transformers = pytest.importorskip("transformers")
    hf = make_hf(layers=3)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    checkpoint = open_checkpoint(tmp_path / "mg")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    write_weights(ours, checkpoint, model=checkpoint.model, dtype=checkpoint.dtype, max_shard_bytes=2000)
    model = transformers.AutoModelForCausalLM.from_pretrained(hf, dtype=torch.bfloat16)
    model.save_pretrained(theirs, max_shard_size=2000)
    names = sorted(path.name for path in theirs.glob("model*"))
    assert sorted(path.name for path in ours.iterdir()) == names
    assert len(names) > 3
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def adapter_of(model, dtype, *, r, seed=1):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(model.num_layers):
        name = f"decoder.layers.{layer}.mlp.linear_fc2"
        state[f"{name}.lora_A.default.weight"] = torch.randn(r, model.ffn_hidden_size, generator=generator).to(dtype)
        state[f"{name}.lora_B.default.weight"] = torch.randn(model.hidden_size, r, generator=generator).to(dtype)
    return state


@pytest.mark.parametrize("scale", [8 / 6, 2.0, 0.25])
def test_merge_of_bf16_rounds_three_times(scale, tmp_path, make_hf, convert):
    """As PEFT 0.7.1, which MindSpeed-LLM uses; later ones round less. Where alpha / r is not a power of two every rounding shows."""
    convert(load="hf", save="mg", load_dir=make_hf(), save_dir=tmp_path / "mg")
    base = open_checkpoint(tmp_path / "mg")
    adapter = adapter_of(base.model, torch.bfloat16, r=6)
    name = "decoder.layers.1.mlp.linear_fc2"
    weight, a, b = base.state()[f"{name}.weight"], *(adapter[f"{name}.lora_{half}.default.weight"] for half in "AB")
    merged, report = merge(weight, a, b, scale=scale, precision="default")
    product = (b.double() @ a.double()).bfloat16()
    delta = (product.double() * scale).bfloat16()
    expected = (weight.double() + delta.double()).bfloat16()
    assert torch.equal(merged, expected)
    assert (report.elements, report.changed) == (weight.numel(), int((expected != weight).sum()))


def test_merging_leaves_the_base_as_it_is():
    generator = torch.Generator().manual_seed(3)
    weight, a, b = (torch.randn(shape, generator=generator) for shape in ((40, 24), (6, 24), (40, 6)))
    before = weight.clone()
    merged, report = merge(weight, a, b, scale=2.0, precision="fp32")
    assert torch.equal(weight, before)
    assert report.changed == weight.numel() == int((merged != weight).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("precision", ["default", "fp32"])
def test_an_untrained_adapter_changes_nothing(dtype, precision):
    """Not even a zero whose sign the sum loses."""
    weight = torch.tensor([[-0.0, 0.0, 1.5], [2.0, -0.0, -3.0]], dtype=dtype)
    a, b = torch.ones(2, 3, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    merged, report = merge(weight, a, b, scale=2.0, precision=precision)
    assert torch.equal(merged, weight)
    assert (report.elements, report.changed) == (6, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merge_in_fp32_rounds_once(dtype):
    generator = torch.Generator().manual_seed(3)
    weight, a, b = (torch.randn(shape, generator=generator).to(dtype) for shape in ((40, 24), (6, 24), (40, 6)))
    merged, _ = merge(weight, a, b, scale=8 / 6, precision="fp32")
    exact = weight.double() + (b.double() @ a.double()) * (8 / 6)
    assert (merged != exact.to(dtype)).float().mean() < 0.01  # the product is accumulated in fp32
    coarse, _ = merge(weight, a, b, scale=8 / 6, precision="default")
    assert (merged.double() - exact).abs().mean() < (coarse.double() - exact).abs().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_merge_rounds_as_peft_does(dtype, tmp_path, make_hf, convert):
    peft = pytest.importorskip("peft")
    convert(load="hf", save="mg", load_dir=make_hf(dtype=dtype), save_dir=tmp_path / "mg")
    base = open_checkpoint(tmp_path / "mg")
    adapter = adapter_of(base.model, dtype, r=6)
    name = "decoder.layers.1.mlp.linear_fc2"
    layer = torch.nn.Sequential(torch.nn.Linear(base.model.ffn_hidden_size, base.model.hidden_size, bias=False, dtype=dtype))
    layer[0].weight.data = base.state()[f"{name}.weight"].clone()
    wrapped = peft.get_peft_model(layer, peft.LoraConfig(r=6, lora_alpha=8, target_modules=["0"]), autocast_adapter_dtype=False)
    linear = wrapped.base_model.model[0]
    linear.lora_A["default"].weight.data = adapter[f"{name}.lora_A.default.weight"]
    linear.lora_B["default"].weight.data = adapter[f"{name}.lora_B.default.weight"]
    linear.merge()
    a, b = (adapter[f"{name}.lora_{half}.default.weight"] for half in "AB")
    merged, _ = merge(base.state()[f"{name}.weight"], a, b, scale=8 / 6, precision="default")
    assert torch.equal(merged, linear.weight)


def test_writing_an_iteration_again_replaces_it(tmp_path, make_hf, convert):
    convert(load="hf", save="mg", load_dir=make_hf(), save_dir=tmp_path / "mg")
    checkpoint = open_checkpoint(tmp_path / "mg")
    state = {name: tensor.clone() for name, tensor in checkpoint.full_state_dict().items()}
    state["decoder.final_layernorm.weight"].fill_(2.0)
    for iteration in (7, 7):
        write_checkpoint(
            tmp_path / "run", iteration=iteration, state=state, model=checkpoint.model, layout=ParallelLayout(), dtype=torch.bfloat16
        )
    assert read_tracker(tmp_path / "run") == 7
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["iter_0000007", "latest_checkpointed_iteration.txt"]
    assert open_checkpoint(tmp_path / "run").full_state_dict()["decoder.final_layernorm.weight"].eq(2).all()


def test_release_checkpoints_are_read(tmp_path, make_hf, convert):
    convert(load="hf", save="mg", load_dir=make_hf(), save_dir=tmp_path / "mg")
    (tmp_path / "mg" / "iter_0000001").rename(tmp_path / "mg" / "release")
    (tmp_path / "mg" / "latest_checkpointed_iteration.txt").write_text("release")
    assert read_tracker(tmp_path / "mg") == 0
    convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out")
    assert read_tracker(tmp_path / "out") == 1
