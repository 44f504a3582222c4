"""Certificates: what they say, and what `verify` proves or refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint.certificate import read_certificate
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint
from qwen3_ops.native.checkpoint.verify import verify


def verdicts(folder: Path, **where: Path) -> list[str]:
    claims = verify(folder, **where)
    print(*claims, sep="\n")
    return [claim.verdict for claim in claims]


PROVEN = ["proven"] * 3


@pytest.mark.parametrize("layout", [{"tp": 1, "pp": 1}, {"tp": 2, "pp": 2}, {"tp": 2, "pp": 3, "noop_layers": "1,4"}], ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_all_directions(layout, tied, make_hf, tmp_path, convert):
    hf = make_hf(layers=4, vocab=23, tied=tied)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", **layout)
    assert verdicts(tmp_path / "mg") == PROVEN
    convert(
        load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "other", tp=2, pp=2, num_layers_per_virtual_pipeline_stage=1
    )
    assert verdicts(tmp_path / "other") == PROVEN
    convert(load="mg", save="hf", load_dir=tmp_path / "other", save_dir=tmp_path / "out", hf_cfg_dir=hf)
    assert verdicts(tmp_path / "out") == PROVEN


def test_experts(golden, tmp_path, convert):
    hf, kind = golden / "ckpt" / "hf_moe_tiny", {"model_type_hf": "qwen3-moe"}
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "a", tp=2, pp=2, target_expert_parallel_size=2, **kind)
    convert(
        load="mg",
        save="mg",
        load_dir=tmp_path / "a",
        save_dir=tmp_path / "b",
        tp=2,
        pp=1,
        target_expert_parallel_size=4,
        moe_grouped_gemm=(),
        **kind,
    )
    convert(load="mg", save="hf", load_dir=tmp_path / "b", save_dir=tmp_path / "c", hf_cfg_dir=hf, **kind)
    for name in "abc":
        assert verdicts(tmp_path / name) == PROVEN


def test_a_block_that_only_moves_has_one_digest(make_hf, tmp_path, convert):
    hf = make_hf(layers=1, heads=4, groups=2)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    certificate = read_certificate(tmp_path / "mg")
    (link,) = [link for link in certificate.mapping if link.tensor.endswith("linear_qkv.weight")]
    sides = [
        sorted(digest for ref in refs for _, digest in side.tensors[ref].blocks)
        for side, refs in ((certificate.source, link.source), (certificate.result, link.result))
    ]
    assert sides[0] == sides[1]
    assert len(sides[0]) == len(set(sides[0])) == 6


def test_digests_are_blake3_of_the_bytes(golden, tmp_path, convert, read_with_torch):
    convert(load="hf", save="mg", load_dir=golden / "ckpt" / "hf_tiny", save_dir=tmp_path, tp=1, pp=1)
    tensors = read_certificate(tmp_path).result.tensors
    file = "iter_0000001/mp_rank_00/model_optim_rng.pt"
    theirs = read_with_torch(golden / "ckpt" / "mg_tp1pp1" / file)["model"]
    for key in ("embedding.word_embeddings.weight", "decoder.layers.2.mlp.linear_fc2.weight", "decoder.final_layernorm.weight"):
        (block,) = tensors[f"{file}:{key}"].blocks
        assert block == (len(theirs[key]), blake3(theirs[key].view(torch.uint8).numpy().tobytes()).hexdigest())


def test_source_that_is_gone(make_hf, tmp_path, convert):
    hf = make_hf()
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    hf.rename(tmp_path / "moved")
    assert verdicts(tmp_path / "mg") == ["proven", "proven", "not checked"]
    assert verdicts(tmp_path / "mg", source=tmp_path / "moved") == PROVEN


def test_changed_dtype(make_hf, tmp_path, convert):
    convert(load="hf", save="mg", load_dir=make_hf(dtype=torch.float32), save_dir=tmp_path / "mg", tp=2, params_dtype="bf16")
    assert verdicts(tmp_path / "mg") == ["proven", "not checked", "proven"]


def test_changed_result(make_hf, tmp_path, convert):
    hf = make_hf()
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2)
    checkpoint = open_checkpoint(tmp_path / "mg")
    state = {name: tensor.clone() for name, tensor in checkpoint.full_state_dict().items()}
    state["decoder.layers.1.mlp.linear_fc1.weight"][3, 3] += 1
    write_checkpoint(tmp_path / "mg", iteration=1, state=state, model=checkpoint.model, layout=checkpoint.layout, dtype="bf16")
    claims = verify(tmp_path / "mg")
    assert [claim.verdict for claim in claims] == ["failed", "failed", "proven"]
    assert "decoder.layers.1.mlp.linear_fc1.weight" in claims[0].detail


def test_flipped_bit(make_hf, tmp_path, convert):
    hf = make_hf()
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    norm = load_file(hf / "model.safetensors")["model.norm.weight"].view(torch.uint8).numpy().tobytes()
    rank = tmp_path / "mg" / "iter_0000001" / "mp_rank_00" / "model_optim_rng.pt"
    data = bytearray(rank.read_bytes())
    data[data.index(norm) + 3] ^= 1
    rank.write_bytes(data)
    assert verdicts(tmp_path / "mg")[:2] == ["failed", "failed"]
    with pytest.raises(BadInput, match="checksum differs"):
        convert(load="mg", save="mg", load_dir=tmp_path / "mg", save_dir=tmp_path / "out")


def test_changed_source(make_hf, tmp_path, convert):
    hf = make_hf()
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    tensors = load_file(hf / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    assert verdicts(tmp_path / "mg") == ["proven", "proven", "failed"]


@pytest.mark.parametrize("precision", ["default", "fp32"])
@pytest.mark.parametrize("to_hf", [False, True])
def test_merge_proof(precision, to_hf, golden, tmp_path, convert):
    ckpt = golden / "ckpt"
    target = {"save": "hf", "hf_cfg_dir": ckpt / "hf_tiny"} if to_hf else {"save": "mg", "tp": 1, "pp": 1}
    convert(
        load="mg",
        load_dir=ckpt / "mg_tp2pp4",
        lora_load=ckpt / "lora_only_tp2pp4",
        save_dir=tmp_path / "out",
        merge_precision=precision,
        **target,
    )
    assert verdicts(tmp_path / "out") == PROVEN
    merge = read_certificate(tmp_path / "out").merge
    assert len(merge.targets) == 16
    assert all(0 < target.changed <= target.elements for target in merge.targets.values())
    path = tmp_path / "out" / "certificate.json"
    content = json.loads(path.read_text())
    content["merge"]["alpha"] = 16
    path.write_text(json.dumps(content))
    assert verdicts(tmp_path / "out") == ["proven", "proven", "failed"]


def test_merge_into_the_base_by_another_adapter_is_refuted(golden, tmp_path, convert):
    ckpt = golden / "ckpt"
    shutil.copytree(ckpt / "lora_only_tp2pp4", tmp_path / "lora")
    adapter = open_checkpoint(tmp_path / "lora")
    convert(load="mg", save="mg", load_dir=ckpt / "mg_tp2pp4", lora_load=tmp_path / "lora", save_dir=tmp_path / "out")
    state = {name: tensor * 2 for name, tensor in adapter.full_state_dict().items()}
    write_checkpoint(
        tmp_path / "lora", iteration=100, state=state, model=adapter.model, layout=adapter.layout, dtype="bf16",
        extra_args={"lora_alpha": 32}, lora_only=True,
    )  # fmt: skip
    assert verdicts(tmp_path / "out") == ["proven", "proven", "failed"]


def test_no_certificate(golden):
    with pytest.raises(BadInput, match="no certificate"):
        verify(golden / "ckpt" / "mg_tp1pp1")


def test_command(make_hf, tmp_path, convert):
    """Three claims, one a line; status 3 where one does not hold."""
    from typer.testing import CliRunner

    from qwen3_ops.cli import app

    hf = make_hf()
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg")
    good = CliRunner().invoke(app, ["verify", str(tmp_path / "mg")])
    assert good.exit_code == 0
    assert [line.partition(":")[0] for line in good.stdout.splitlines()] == PROVEN
    (hf / "model.safetensors").unlink()
    bad = CliRunner().invoke(app, ["verify", str(tmp_path / "mg"), "--json"])
    assert bad.exit_code == 3
    assert [claim["verdict"] for claim in json.loads(bad.stdout)] == ["proven", "proven", "failed"]


@pytest.fixture
def full_lora(golden, tmp_path) -> Path:
    """A checkpoint of LoRA training that holds the base's weights too, at iteration 100."""
    base, adapter = (open_checkpoint(golden / "ckpt" / name) for name in ("mg_tp2pp4", "lora_only_tp2pp4"))
    lora = adapter.full_state_dict()
    targets = {name.replace(".lora_A.default.", ".") for name in lora}
    state = {
        name.replace(".weight", ".base_layer.weight") if name in targets else name: tensor
        for name, tensor in base.full_state_dict().items()
    }
    write_checkpoint(
        tmp_path / "full",
        iteration=100,
        state=state | lora,
        model=base.model,
        layout=base.layout,
        dtype="bf16",
        extra_args={"lora_alpha": 32},
    )
    return tmp_path / "full"


@pytest.mark.parametrize("as_base", [True, False])
def test_merge_proof_of_an_adapter_with_its_base(as_base, golden, tmp_path, convert, full_lora):
    """As MindSpeed-LLM does, the result has the iteration of --load-dir, while what is read is the adapter's."""
    load = {"load_dir": full_lora} if as_base else {"load_dir": golden / "ckpt" / "mg_tp2pp4", "lora_load": full_lora}
    convert(load="mg", save="mg", save_dir=tmp_path / "out", **load)
    assert verdicts(tmp_path / "out") == PROVEN
    assert open_checkpoint(tmp_path / "out").iteration == (100 if as_base else 1)


def test_adapter_export_of_a_checkpoint_on_two_nodes(tmp_path, convert, full_lora):
    rank = "iter_0000100/mp_rank_01_003"
    (tmp_path / "node" / rank).parent.mkdir(parents=True)
    (full_lora / rank).rename(tmp_path / "node" / rank)
    convert(load="mg", save="hf", load_dir=full_lora, load_dir_extra=[tmp_path / "node"], save_dir=tmp_path / "out", save_lora_to_hf=())
    assert verdicts(tmp_path / "out") == ["proven", "not checked", "proven"]
    (tmp_path / "node").rename(tmp_path / "gone")
    assert verdicts(tmp_path / "out") == ["proven", "not checked", "not checked"]


def test_tensor_that_no_certificate_lists(golden, tmp_path, convert):
    """An adapter has no inverse that would stumble over it."""
    ckpt = golden / "ckpt"
    convert(
        load="mg",
        save="hf",
        load_dir=ckpt / "mg_tp1pp1",
        lora_load=ckpt / "lora_only_tp1pp1",
        save_dir=tmp_path / "out",
        save_lora_to_hf=(),
    )
    file = tmp_path / "out" / "mg2hf" / "adapter_model.safetensors"
    save_file(load_file(file) | {"smuggled": torch.ones(3)}, file, metadata={"format": "pt"})
    claim, *_ = verify(tmp_path / "out")
    assert (claim.verdict, claim.detail) == ("failed", "1 tensors differ, the first is adapter_model.safetensors:smuggled")


def test_files_that_no_certificate_lists(make_hf, tmp_path, convert):
    """A rank too many, and an iteration that whoever loads the folder would take instead."""
    hf, mg = make_hf(), tmp_path / "mg"
    convert(load="hf", save="mg", load_dir=hf, save_dir=mg)
    shutil.copytree(mg / "iter_0000001", mg / "iter_0000002")
    assert verdicts(mg) == PROVEN
    (mg / "latest_checkpointed_iteration.txt").write_text("2")
    assert verify(mg)[0].detail == "latest_checkpointed_iteration.txt names iteration 2, not 1"
    (mg / "latest_checkpointed_iteration.txt").write_text("1")
    shutil.copytree(mg / "iter_0000001" / "mp_rank_00", mg / "iter_0000001" / "mp_rank_01")
    assert verify(mg)[0].verdict == "failed"
    convert(load="mg", save="hf", load_dir=mg, save_dir=tmp_path / "out", hf_cfg_dir=hf)
    shutil.copy(hf / "model.safetensors", tmp_path / "out" / "mg2hf" / "more.safetensors")
    assert verify(tmp_path / "out")[0].verdict == "failed"


def test_certificate_of_files_elsewhere(make_hf, tmp_path, convert):
    convert(load="hf", save="mg", load_dir=make_hf(), save_dir=tmp_path / "mg")
    text = (tmp_path / "mg" / "certificate.json").read_text()
    (tmp_path / "other").mkdir()
    for elsewhere in (str(tmp_path / "mg"), "../mg"):
        content = json.loads(text)
        content["result"]["path"] = elsewhere
        (tmp_path / "other" / "certificate.json").write_text(json.dumps(content))
        with pytest.raises(BadInput, match="files elsewhere"):
            verify(tmp_path / "other")


@pytest.mark.parametrize("layout", [None, {"num_layers_per_virtual_pipeline_stage": 0}, {"tensor_model_parallel_size": 0}], ids=str)
def test_certificate_with_a_wrong_layout(layout, make_hf, tmp_path, convert):
    convert(load="hf", save="mg", load_dir=make_hf(), save_dir=tmp_path / "mg")
    path = tmp_path / "mg" / "certificate.json"
    content = json.loads(path.read_text())
    content["result"]["layout"] = layout and content["result"]["layout"] | layout
    path.write_text(json.dumps(content))
    assert verdicts(tmp_path / "mg") == ["proven", "proven", "failed"]
