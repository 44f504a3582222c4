"""What a run must not do: start from nothing, overwrite, train another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.errors import BadInput, Infrastructure, QualityGate
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, read_tracker, write_checkpoint
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.verb import check_world

Train = Callable[[list[str]], Any]


@pytest.fixture
def short(sft: list[str], edit: Any) -> list[str]:
    return edit.changed(sft, train_iters=2, seq_length=64, save_interval=2)


def test_a_missing_checkpoint_is_never_random_weights(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(BadInput, match=r"no checkpoint|not there"):
            train(edit.changed(short, load=folder, save=tmp_path / "save"))
    assert not (tmp_path / "save").exists()


def test_nothing_is_overwritten(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    argv = edit.changed(short, save=tmp_path / "save")
    train(argv)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "save").rglob("*")}
    with pytest.raises(BadInput, match="already holds a trained checkpoint"):
        train(argv)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "save").rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 5}, "decoder.layers.4.*not in the checkpoint"),
        ({"ffn_hidden_size": 64}, r"linear_fc1.weight: \[256, 64\] in the checkpoint, \[128, 64\] in the model"),
        ({"tensor_model_parallel_size": 2}, "layout is not the flags'"),
    ],
)
def test_a_checkpoint_of_another_model(
    train: Train, short: list[str], edit: Any, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        train(edit.changed(short, save=tmp_path / "save", **change))


def test_another_norm_epsilon_is_said_aloud(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    run = train(edit.changed(short, norm_epsilon=1e-5, save=tmp_path / "save"))
    assert any("--norm-epsilon is 1e-05" in message for message in run.events.messages)


def test_converted_checkpoint_without_optimizer(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no optimizer state"):
        train(edit.resumed(short, save=tmp_path / "save"))


def test_another_lora(train: Train, short: list[str], lora: list[str], edit: Any, initial_lora: Path, tmp_path: Path) -> None:
    argv = edit.changed([*short, *lora], lora_load=initial_lora, save=tmp_path / "save")
    with pytest.raises(BadInput, match="lora-alpha"):
        train(edit.changed(argv, lora_alpha=16))
    with pytest.raises(BadInput, match="do not fit the flags"):
        train(edit.changed(argv, lora_r=8))
    with pytest.raises(BadInput, match="not a target"):
        train([token for token in argv if token != "linear_fc2"])


def test_lora_weights_without_lora_flags(train: Train, short: list[str], lora: list[str], edit: Any, tmp_path: Path) -> None:
    train(edit.changed([*short, *lora], save=tmp_path / "lora"))
    with pytest.raises(BadInput, match="holds LoRA weights"):
        train(edit.changed(short, load=tmp_path / "lora", save=tmp_path / "save"))


def test_weights_that_are_not_numbers_end_the_run(train: Train, short: list[str], edit: Any, golden: Path, tmp_path: Path) -> None:
    base = open_checkpoint(golden / "ckpt" / "mg_tp1pp1")
    state = base.full_state_dict()
    state["decoder.final_layernorm.weight"] = state["decoder.final_layernorm.weight"] * float("nan")
    write_checkpoint(tmp_path / "broken", iteration=1, state=state, model=base.model, layout=base.layout, dtype="fp32")
    with pytest.raises(QualityGate, match=r"loss of iteration 1 is not a number: seen with the records \d+, \d+"):
        train(edit.changed(short, load=tmp_path / "broken", save=tmp_path / "save"))
    assert read_tracker(tmp_path / "save") is None


def test_fsdp_alone_is_refused(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs several processes"):
        train([*edit.changed(short, save=tmp_path / "save"), "--use-torch-fsdp2"])


@pytest.mark.parametrize(
    ("size", "extra", "message"),
    [(3, [], "not divisible by the micro batches of all"), (2, ["--reproduce-loss-mask-defect", "2"], "for one process")],
)
def test_a_number_of_processes_that_does_not_fit(pretrain: list[str], size: int, extra: list[str], message: str) -> None:
    flags, _ = FLAGS.parse([*pretrain, *extra])
    with pytest.raises(BadInput, match=message):
        check_world(flags, World(device=torch.device("cpu"), rank=1, size=size))


def test_an_empty_split(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to train on"):
        train(edit.changed(short, split="0,100,0", save=tmp_path / "save"))


def test_from_scratch_is_allowed_and_said(train: Train, pretrain: list[str], edit: Any, tmp_path: Path) -> None:
    at = pretrain.index("--load")
    argv = edit.changed([*pretrain[:at], *pretrain[at + 2 :]], train_iters=2, seq_length=32, save=tmp_path / "one", save_interval=2)
    first = train(argv)
    again = train(edit.changed(argv, save=tmp_path / "two"))
    assert any("drawn at random from seed 42" in message for message in first.events.messages)
    assert first.curve("lm_loss") == again.curve("lm_loss")
    assert 5.5 < first.curve("lm_loss")[1] < 7  # log(512) = 6.24
    assert first.outcome.kind == "mcore_checkpoint"


def test_a_damaged_optimizer_state(train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
    save = tmp_path / "save"
    train(edit.changed(short, save=save))
    state = save / "iter_0000002" / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(BadInput, match=r"can not be read.*older iteration"):
        train(edit.resumed(short, save=save, load=save))


def test_a_full_disk_keeps_the_last_checkpoint(
    train: Train, short: list[str], edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from qwen3_ops.native.training import checkpointing

    save, real, calls = tmp_path / "save", checkpointing.save_file, []

    def full_from_the_third_on(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 2:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        real(tensors, path)

    monkeypatch.setattr(checkpointing, "save_file", full_from_the_third_on)
    with pytest.raises(Infrastructure, match="disk full"):
        train(edit.changed(short, save=save, train_iters=4))
    assert read_tracker(save) == 2
    assert sorted(path.name for path in save.iterdir()) == ["iter_0000002", "latest_checkpointed_iteration.txt"]
    monkeypatch.undo()
    train(edit.resumed(short, save=save, load=save, train_iters=4))
    assert read_tracker(save) == 4
