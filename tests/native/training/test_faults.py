"""Faults of the real trainer, each with a test that it is not repeated here.

MindSpeed-LLM 2.1.0 over Megatron-LM 0.8.0: a shuffle index cached without the split's bounds, the held-out
documents that it therefore trains on, a loss mask that is written into, and resumed runs that start again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.mcore import read_tracker
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training.batches import InstructionSamples, PretrainSamples, open_splits
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.mask_defect import LossMaskDefect

Train = Callable[[list[str]], Any]


def splits(argv: list[str]) -> Any:
    return open_splits(FLAGS.parse(argv)[0], Events())


@pytest.fixture
def short(sft: list[str], edit: Any) -> list[str]:
    return edit.changed(sft, train_iters=4, seq_length=64, save_interval=2)  # type: ignore[no-any-return]


class TestShuffleIndex:
    def test_no_cache_is_left_beside_the_data(self, train: Train, short: list[str], golden: Path, tmp_path: Path, edit: Any) -> None:
        shutil.copytree(golden / "data" / "outputs" / "alpaca_mapkeys", tmp_path / "data")
        before = sorted(path.name for path in (tmp_path / "data").rglob("*"))
        train(edit.changed(short, data_path=tmp_path / "data" / "d", save=tmp_path / "save"))
        assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == before

    @pytest.mark.parametrize("kept", [False, True], ids=["no-folder", "data-cache-path"])
    def test_another_split_is_another_order(
        self, kept: bool, train: Train, short: list[str], golden: Path, tmp_path: Path, edit: Any
    ) -> None:
        """Same data folder, iterations and seed: the second run is as on a fresh copy."""
        shutil.copytree(golden / "data" / "outputs" / "alpaca_mapkeys", tmp_path / "data")
        split = edit.changed(short, split="80,20,0", save=tmp_path / "fresh")
        alone = train(split)
        same = {"data_path": tmp_path / "data" / "d", **({"data_cache_path": tmp_path / "orders"} if kept else {})}
        train(edit.changed(short, **same, save=tmp_path / "first"))
        after = train(edit.changed(split, **same, save=tmp_path / "second"))
        assert after.curve("lm_loss") == alone.curve("lm_loss")
        assert len(list(tmp_path.glob("orders/*.npy"))) == (2 if kept else 0)


class TestSplit:
    def test_held_out_records_are_not_trained(self, sft: list[str], edit: Any) -> None:
        parts = splits(edit.changed(sft, split="60,25,15", eval_iters=3, train_iters=500))
        orders = [part.order for part in (parts.train, parts.validation, parts.test)]
        assert all(isinstance(part, InstructionSamples) for part in (parts.train, parts.validation, parts.test))
        sets = [set(order.tolist()) for order in orders]
        assert max(sets[0]) < min(sets[1])
        assert max(sets[1]) < min(sets[2])
        assert set().union(*sets) == set(range(len(parts.train.dataset)))

    def test_held_out_texts_are_not_trained(self, pretrain: list[str], edit: Any) -> None:
        parts = splits(edit.changed(pretrain, split="60,25,15", eval_iters=3, seq_length=32))
        documents = [set(part.dataset.document_index.tolist()) for part in (parts.train, parts.validation, parts.test)]
        assert max(documents[0]) < min(documents[1])
        assert max(documents[1]) < min(documents[2])

    def test_padding_of_epochs_stays_in_its_part(self, sft: list[str], edit: Any) -> None:
        """The real tool fills validation epochs up with the first training records."""
        parts = splits([*edit.changed(sft, split="60,25,15", eval_iters=30, global_batch_size=8), "--padded-samples"])
        documents = [set(part.order.tolist()) for part in (parts.train, parts.validation)]
        assert not documents[0] & documents[1]
        assert all(len(part.order) % 8 == 0 for part in (parts.train, parts.validation))


class TestLossMask:
    @staticmethod
    def left_out(samples: PretrainSamples, *, micro_batches: int) -> list[list[list[int]]]:
        """Positions without a label: of each micro batch, of each row."""
        first = 4  # a run that continues iteration 1
        batches = [samples.micro_batch(first + 2 * number, 2) for number in range(micro_batches)]
        return [[torch.nonzero(row == IGNORE_INDEX).flatten().tolist() for row in batch.labels] for batch in batches]

    def test_only_padding_is_left_out(self, pretrain: list[str], edit: Any) -> None:
        found = self.left_out(splits(edit.changed(pretrain, train_iters=11)).train, micro_batches=20)
        assert [(number, row) for number, rows in enumerate(found) for row, positions in enumerate(rows) if positions] in (
            [(7, 0)],
            [(7, 1)],
        )

    def test_asked_for_it_is_the_real_tools(self, pretrain: list[str], golden: Path, edit: Any) -> None:
        stored = json.loads((golden / "train" / "pretrain_fp32" / "batch_order.json").read_text())
        argv = edit.changed(pretrain, train_iters=11, reproduce_loss_mask_defect=stored["num_workers"])
        assert self.left_out(splits(argv).train, micro_batches=20) == stored["loss_mask_zero_positions_per_micro_batch"]

    @pytest.mark.parametrize(("workers", "damaged"), [(0, [1, 2, 3, 4, 5]), (1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [1, 4]), (7, [1])])
    def test_each_worker_has_its_own_mask(self, workers: int, damaged: list[int]) -> None:
        defect = LossMaskDefect(workers, seq_length=4)
        found = []
        for number in range(6):
            labels = torch.ones(2, 4, dtype=torch.long)
            if number == 1:
                labels[1, 2] = IGNORE_INDEX
            after = defect.damage(labels, first=10 + 2 * number)
            assert torch.equal(after[0], after[1])
            found += [number] if bool((after == IGNORE_INDEX).any()) else []
        assert found == damaged

    def test_asking_twice_for_a_micro_batch_changes_nothing(self) -> None:
        defect = LossMaskDefect(1, seq_length=3)
        labels = torch.tensor([[1, IGNORE_INDEX, 2]])
        assert torch.equal(defect.damage(labels, first=0), defect.damage(labels, first=0))

    def test_it_is_for_pretraining_only(self, sft: list[str]) -> None:
        with pytest.raises(BadInput, match="--reproduce-loss-mask-defect is for pre-training"):
            FLAGS.parse([*sft, "--reproduce-loss-mask-defect", "2"])


class TestResume:
    @pytest.fixture
    def stopped(self, train: Train, short: list[str], edit: Any, tmp_path: Path) -> Path:
        with pytest.raises(Exception, match="stopped"):
            train(edit.changed(short, save=tmp_path / "save", exit_interval=2))
        return tmp_path / "save"

    def test_the_flags_of_a_new_start_do_not_start_again_over_a_run(self, train: Train, short: list[str], edit: Any, stopped: Path) -> None:
        """The real tool begins at iteration 1 and overwrites what was saved."""
        with pytest.raises(BadInput, match=r"already holds.*without --finetune"):
            train(edit.changed(short, save=stopped))
        with pytest.raises(BadInput, match=r"already holds.*without --finetune"):
            train(edit.changed(short, save=stopped, load=stopped))
        assert read_tracker(stopped) == 2

    def test_nothing_to_load_is_not_a_start_from_random_weights(self, train: Train, short: list[str], edit: Any, tmp_path: Path) -> None:
        """The real tool warns in one line of its log and trains a random model."""
        (tmp_path / "empty").mkdir()
        with pytest.raises(BadInput):
            train(edit.resumed(short, load=tmp_path / "empty", save=tmp_path / "save"))

    def test_a_lost_optimizer_state_is_not_replaced_by_a_new_one(self, train: Train, short: list[str], edit: Any, stopped: Path) -> None:
        (stopped / "iter_0000002" / "optimizer.safetensors").unlink()
        with pytest.raises(BadInput, match="no optimizer state"):
            train(edit.resumed(short, save=stopped, load=stopped))

    def test_where_it_goes_on_is_said(self, train: Train, short: list[str], edit: Any, stopped: Path) -> None:
        run = train(edit.resumed(short, save=stopped, load=stopped))
        assert "info: going on after iteration 2, 8 samples consumed" in run.events.messages
        assert run.curve("lm_loss").keys() == {3, 4}

    def test_a_changed_order_of_samples_is_said(self, train: Train, short: list[str], edit: Any, stopped: Path) -> None:
        run = train(edit.resumed(edit.changed(short, seed=7), save=stopped, load=stopped))
        assert any("seed 42 -> 7" in message for message in run.events.messages)
        assert np.isfinite(run.outcome.metrics["last_loss"])
