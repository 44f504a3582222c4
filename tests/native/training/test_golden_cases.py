"""Every stored run of the real trainer, repeated: loss, gradient norm and learning rate of each iteration, and final weights.

Only ``qa_tuned`` is not here: its data is not stored (its weights are, generation and MMLU use them).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qwen3_ops.native.checkpoint.mcore import open_checkpoint

Train = Callable[[list[str]], Any]
Compare = Callable[..., None]

FP32 = 1e-5
BF16 = 1e-3
BF16_GRAD_NORM = 1.5e-2
"""Of a fifth of the iterations at most; the others are within 1e-3. Rounding: runs that differ in the order of their sums alone are as
far apart (``test_rounding.py``), two layouts of the real tool 3.4e-3."""


def layout(tp: int, pp: int) -> list[str]:
    return ["--tensor-model-parallel-size", str(tp), "--pipeline-model-parallel-size", str(pp)]


def assert_weights(save: Path, wanted: dict[str, Tensor], *, tolerance: float) -> None:
    found = open_checkpoint(save).full_state_dict()
    assert found.keys() == wanted.keys()
    worst = max(float((found[name].float() - tensor.float()).abs().max()) for name, tensor in wanted.items())
    assert worst < tolerance, worst


@pytest.mark.parametrize(
    ("case", "base", "flags"),
    [
        ("sft_full_fp32", "mg_tp1pp1", []),
        ("sft_distopt_fp32", "mg_tp1pp1", ["--use-distributed-optimizer"]),
        ("sft_tp2pp2_fp32", "mg_tp2pp2", layout(2, 2)),
        ("sft_tp2pp2_sp_fp32", "mg_tp2pp2", [*layout(2, 2), "--sequence-parallel"]),
        ("sft_dp2_fp32", "mg_tp1pp1", []),  # two processes there, one here: the same batch
    ],
)
def test_full_fine_tuning(
    case: str, base: str, flags: list[str], train: Train, sft: list[str], golden: Path, edit: Any, assert_curve: Compare
) -> None:
    assert_curve(train([*edit.changed(sft, load=golden / "ckpt" / base), *flags]), case, tolerance=FP32)


def test_full_fine_tuning_with_its_final_weights_and_resumed(
    train: Train, sft: list[str], golden: Path, tmp_path: Path, edit: Any, assert_curve: Compare
) -> None:
    """``sft_full_fp32`` in two parts, the second of which is ``sft_resume``."""
    save = tmp_path / "save"
    argv = edit.changed(sft, save=save, save_interval=10)
    with pytest.raises(Exception, match="--exit-interval 10"):
        train(edit.changed(argv, exit_interval=10))
    assert_curve(train(edit.resumed(argv, load=save)), "sft_resume", tolerance=FP32)
    assert_weights(save, load_file(golden / "train" / "sft_full_fp32" / "final_mp_rank_00.safetensors"), tolerance=FP32)


def test_fixed_length(train: Train, sft: list[str], edit: Any, assert_curve: Compare) -> None:
    assert_curve(train(edit.without(sft, "--variable-seq-lengths")), "sft_fixedlen", tolerance=FP32)


def test_linear_decay(train: Train, sft: list[str], edit: Any, assert_curve: Compare) -> None:
    assert_curve(train(edit.changed(sft, lr_decay_style="linear", lr_warmup_fraction=0.01)), "sft_linear", tolerance=FP32)


@pytest.mark.parametrize(
    ("case", "base", "flags"),
    [
        ("sft_full_bf16", "mg_tp1pp1", []),
        ("sft_tp2pp4_sp_bf16", "mg_tp2pp4", [*layout(2, 4), "--sequence-parallel"]),
    ],
)
def test_full_fine_tuning_in_bf16(
    case: str, base: str, flags: list[str], train: Train, sft: list[str], golden: Path, edit: Any, assert_curve: Compare
) -> None:
    run = train([*edit.changed(sft, load=golden / "ckpt" / base), *flags, "--bf16"])
    assert_curve(run, case, tolerance=BF16, grad_norm=BF16_GRAD_NORM)


@pytest.mark.parametrize(
    ("case", "flags", "tolerance", "grad_norm"), [("pretrain_fp32", [], FP32, FP32), ("pretrain_bf16", ["--bf16"], BF16, BF16_GRAD_NORM)]
)
def test_pretraining_with_the_real_tools_loss_mask(
    case: str, flags: list[str], tolerance: float, grad_norm: float, train: Train, pretrain: list[str], edit: Any, assert_curve: Compare
) -> None:
    argv = [*edit.changed(pretrain, train_iters=11), *flags, "--reproduce-loss-mask-defect", "2"]
    assert_curve(train(argv), case, tolerance=tolerance, grad_norm=grad_norm)


def test_pretraining_is_right_without_being_asked(train: Train, pretrain: list[str], edit: Any, assert_curve: Compare) -> None:
    """Iterations 2 to 4 are the real tool's; from the fifth on its mask leaves out a token that is not padding."""
    run = train(edit.changed(pretrain, train_iters=11))
    assert_curve(run, "pretrain_fp32", tolerance=FP32, until=4)
    with pytest.raises(AssertionError, match="lm_loss differs"):
        assert_curve(run, "pretrain_fp32", tolerance=FP32)


@pytest.mark.parametrize(("case", "flags"), [("lora_fp32", []), ("lora_fusion", ["--lora-fusion"])])
def test_lora(
    case: str, flags: list[str], train: Train, sft: list[str], lora: list[str], initial_lora: Path, assert_curve: Compare
) -> None:
    assert_curve(train([*sft, *lora, *flags, "--lora-load", str(initial_lora)]), case, tolerance=FP32)


@pytest.mark.parametrize(
    ("case", "only_lora_saved", "source"), [("lora_resume_load_full", False, "load"), ("lora_resume_lora_load", True, "lora_load")]
)
def test_lora_resumed_with_its_final_weights(
    case: str, only_lora_saved: bool, source: str, train: Train, sft: list[str], lora: list[str], initial_lora: Path, golden: Path,
    tmp_path: Path, edit: Any, assert_curve: Compare,
) -> None:  # fmt: skip
    save = tmp_path / "save"
    argv = [*edit.changed(sft, save=save, save_interval=10), *lora, *(["--lora-ckpt-filter"] if only_lora_saved else [])]
    with pytest.raises(Exception, match="--exit-interval 10"):
        train(edit.changed(argv, exit_interval=10, lora_load=initial_lora))
    assert_curve(train(edit.resumed(argv, **{source: save})), case, tolerance=FP32)
    wanted = load_file(golden / "train" / "lora_fp32" / "final_mp_rank_00.safetensors")
    if not only_lora_saved:
        base = open_checkpoint(golden / "ckpt" / "mg_tp1pp1").full_state_dict()
        assert {name for name in open_checkpoint(save).full_state_dict() if "lora" not in name} == {
            name.replace(".weight", ".base_layer.weight") if ".linear_" in name else name for name in base
        }
        wanted |= {name: tensor for name, tensor in open_checkpoint(save).full_state_dict().items() if "lora" not in name}
    assert_weights(save, wanted, tolerance=FP32)


def test_lora_restarted_with_finetune(
    train: Train, sft: list[str], initial_lora: Path, tmp_path: Path, edit: Any, lora: list[str], assert_curve: Compare
) -> None:
    """``--lora-load`` with --finetune: the weights of iteration 10, the schedule from the beginning."""
    first = [*sft, *lora, "--lora-load", str(initial_lora), "--lora-ckpt-filter", "--save", str(tmp_path / "save")]
    train(edit.changed(first, save_interval=10, train_iters=10, lr_decay_iters=20))
    argv = [*sft, *lora, "--lora-load", str(tmp_path / "save"), "--lora-ckpt-filter"]
    assert_curve(train(argv), "lora_restart_with_finetune", tolerance=FP32)


def test_lora_in_bf16(
    train: Train, sft: list[str], lora: list[str], golden: Path, tmp_path: Path, edit: Any, lora_checkpoint: Callable[..., Path],
    assert_curve: Compare,
) -> None:  # fmt: skip
    stored = golden / "train" / "lora_bf16"
    start = lora_checkpoint(load_file(stored / "initial_lora_rank0.safetensors"), dtype="bf16")
    argv = [*edit.changed(sft, save=tmp_path / "save", save_interval=20), *lora, "--lora-ckpt-filter", "--bf16"]
    run = train([*argv, "--lora-load", str(start)])
    assert_curve(run, "lora_bf16", tolerance=BF16)
    assert run.outcome.metrics["trainable_parameters"] == 65_536
    assert run.outcome.facts["lora_target_modules"] == ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


def joined(folder: Path, *, name: str, ranks: dict[tuple[int, int], str]) -> dict[str, Tensor]:
    """Whole LoRA weights from the shards of TP2 PP2 (two layers a stage), written apart from the checkpoint room."""
    whole: dict[str, Tensor] = {}
    for pp in range(2):
        first, second = (load_file(folder / f"{name}{ranks[tp, pp]}.safetensors") for tp in range(2))
        for key, shard in first.items():
            number = int(key.split(".")[2])
            target = key.replace(f"layers.{number}.", f"layers.{number + 2 * pp}.")
            row_parallel = ".linear_proj." in key or ".linear_fc2." in key
            if row_parallel == (".lora_B." in key):
                assert torch.allclose(shard, second[key], atol=1e-6), key  # both ranks hold the same
                whole[target] = shard
            elif row_parallel:
                whole[target] = torch.cat([shard, second[key]], dim=1)
            elif ".linear_fc1." in key:  # a rank's half of the gate, then its half of up
                whole[target] = torch.cat([part for half in range(2) for part in (shard.chunk(2)[half], second[key].chunk(2)[half])])
            else:
                whole[target] = torch.cat([shard, second[key]])
    return whole


def test_lora_over_shards(
    train: Train, sft: list[str], lora: list[str], golden: Path, tmp_path: Path, edit: Any, lora_checkpoint: Callable[..., Path],
    assert_curve: Compare,
) -> None:  # fmt: skip
    """``lora_tp2pp2_fp32``: A drawn by each stage for itself, those of row-parallel layers alike on both tensor ranks."""
    stored = golden / "train" / "lora_tp2pp2_fp32"
    begin = joined(stored, name="initial_lora_rank", ranks={(tp, pp): str(2 * pp + tp) for tp in range(2) for pp in range(2)})
    end = joined(stored, name="final_mp_rank_", ranks={(tp, pp): f"0{tp}_00{pp}" for tp in range(2) for pp in range(2)})
    start = lora_checkpoint(begin, base="mg_tp2pp2")
    argv = edit.changed(sft, load=golden / "ckpt" / "mg_tp2pp2", save=tmp_path / "save", save_interval=20, lora_load=start)
    assert_curve(train([*argv, *layout(2, 2), *lora, "--lora-ckpt-filter"]), "lora_tp2pp2_fp32", tolerance=FP32)
    assert_weights(tmp_path / "save", end, tolerance=FP32)


def test_lora_from_another_random_start(train: Train, sft: list[str], lora: list[str], golden: Path, edit: Any) -> None:
    """``lora_tp2pp4_distopt_bf16``: its random A is not stored, so only what does not depend on it can be equal."""
    argv = [*edit.changed(sft, load=golden / "ckpt" / "mg_tp2pp4"), *layout(2, 4), *lora, "--lora-fusion", "--use-distributed-optimizer"]
    run = train([*argv, "--no-shared-storage", "--bf16"])
    rows = json.loads((golden / "train" / "lora_tp2pp4_distopt_bf16" / "metrics.json").read_text())["iterations"]
    loss, lr = run.curve("lm_loss"), run.curve("learning_rate")
    assert all(lr[row["iteration"]] == pytest.approx(row["lr_logged"], abs=1e-12) for row in rows)
    assert all(abs(loss[row["iteration"]] - row["lm_loss"]) < BF16 for row in rows[:2])  # B is still zero
    assert all(abs(loss[row["iteration"]] - row["lm_loss"]) < 1e-2 for row in rows)
