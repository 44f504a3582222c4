"""Several documents in one sequence: each is trained as if it stood alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.data.packed_view import documents_by_eos, positions_in
from qwen3_ops.native.data.packing import Packing
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.trainer_view import InstructionDataset
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training.batches import MicroBatch, open_splits
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.step import micro_batch_loss

Train = Callable[[list[str]], Any]
NEAT = ["--reset-position-ids", "--reset-attention-mask", "--neat-pack"]
SIZE, PAD, EOS = 512, 507, 509


@pytest.fixture
def packed(golden: Path, tmp_path: Path) -> Callable[[bool], Path]:
    """The records of ``alpaca_mapkeys`` that are not too long, packed."""
    source = golden / "data" / "outputs" / "alpaca_mapkeys" / "d"

    def pack(neat: bool) -> Path:
        from qwen3_ops.native.data.indexed import IndexedDataset
        from qwen3_ops.native.data.indexed_format import output_prefix
        from qwen3_ops.native.data.writer import IndexedDatasetWriter

        short = tmp_path / "short"
        for name in ("packed_input_ids", "packed_labels"):
            records = IndexedDataset(output_prefix(source, name))
            with IndexedDatasetWriter(output_prefix(short, name)) as writer:
                for number in range(len(records)):
                    if len(records[number]) <= 200:
                        writer.add_document(array_of(records[number]))
        Packing(size=SIZE, pad_token_id=PAD, neat=neat).write(tmp_path / "packed", [short])
        return tmp_path / "packed"

    return pack


def array_of(tokens: np.ndarray) -> Any:
    from array import array

    return array("i", tokens.tolist())


def batch_of(argv: list[str], number: int = 0) -> MicroBatch:
    return open_splits(FLAGS.parse(argv)[0], Events()).train.micro_batch(2 * number, 2)


def test_a_packed_record_learns_what_it_would_alone(sft: list[str], edit: Any, packed: Callable[[bool], Path], model: Any) -> None:
    """Loss and gradient of a pack are those of its records one by one: nothing is seen of the neighbours."""
    batch = batch_of([*edit.changed(sft, data_path=packed(True)), *NEAT])
    assert batch.documents is not None
    loss = micro_batch_loss(model, batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    sums, counts, alone_gradients = 0.0, 0, [torch.zeros_like(parameter) for parameter in model.parameters()]
    for row in range(len(batch.tokens)):
        for document in range(1, int(batch.documents[row].max()) + 1):
            chosen = batch.documents[row] == document
            alone = MicroBatch(
                tokens=batch.tokens[row, chosen][None], labels=batch.labels[row, chosen][None], records=(), num_tokens=0, num_labels=1
            )
            count = int((alone.labels != IGNORE_INDEX).sum())
            part = micro_batch_loss(model, alone) * count
            for total, gradient in zip(alone_gradients, torch.autograd.grad(part, list(model.parameters())), strict=True):
                total += gradient
            sums, counts = sums + part.item(), counts + count
    assert batch.num_labels == counts
    assert loss.item() == pytest.approx(sums / counts, abs=1e-5)
    for found, wanted in zip(gradients, alone_gradients, strict=True):
        torch.testing.assert_close(found, wanted / counts, rtol=1e-3, atol=1e-6)


@pytest.fixture
def model(golden: Path, sft: list[str]) -> Any:
    from qwen3_ops.native.checkpoint.mcore import open_checkpoint
    from qwen3_ops.native.model import build_model, load_full_state

    made = build_model(FLAGS.parse(sft)[0].model_spec(), dtype=torch.float32)
    load_full_state(made, open_checkpoint(golden / "ckpt" / "mg_tp1pp1").state())
    return made


def test_packed_training(train: Train, sft: list[str], edit: Any, packed: Callable[[bool], Path]) -> None:
    run = train([*edit.changed(sft, data_path=packed(True), train_iters=6, micro_batch_size=1, global_batch_size=2), *NEAT])
    losses = run.curve("lm_loss")
    assert losses[6] < losses[1]
    assert run.outcome.metrics["tokens"] < 6 * 2 * SIZE, "padding is not counted"


def test_without_neat_pack_every_end_token_ends_a_document(sft: list[str], edit: Any, packed: Callable[[bool], Path]) -> None:
    """The original's other form; it tears a conversation whose template closes prompts with the same token, so it is said."""
    batch = batch_of([*edit.changed(sft, data_path=packed(False)), "--reset-position-ids"])
    for ids, positions in zip(batch.tokens.tolist(), batch.positions.tolist(), strict=True):
        assert positions == originals_positions(ids, eos=EOS)
    warned: list[str] = []

    class Said(Events):
        def warning(self, message: str, **fields: Any) -> None:
            warned.append(message)

    open_splits(FLAGS.parse([*edit.changed(sft, data_path=packed(False)), "--reset-position-ids"])[0], Said())
    assert "conversations are torn" in warned[0]


def originals_positions(ids: list[int], *, eos: int) -> list[int]:
    """As ``_get_reset_position_ids`` of MindSpeed-LLM has it."""
    positions = np.arange(len(ids))
    previous = 0
    for place in [place for place, token in enumerate(ids) if token == eos]:
        positions[place + 1 :] -= place + 1 - previous
        previous = place + 1
    return positions.tolist()


@given(st.lists(st.sampled_from([1, 2, EOS]), min_size=1, max_size=30))
def test_positions_are_the_originals(ids: list[int]) -> None:
    documents = documents_by_eos(np.array([ids]), eos=EOS)
    assert positions_in(documents)[0].tolist() == originals_positions(ids, eos=EOS)


@given(st.lists(st.integers(1, 6), max_size=6), st.integers(0, 5))
def test_positions_of_a_neat_pack(lengths: list[int], padding: int) -> None:
    mask = [number for number, length in enumerate(lengths, start=1) for _ in range(length)] + [0] * padding
    wanted = [place for length in lengths for place in range(length)] + [0] * padding
    assert positions_in(np.array([mask], dtype=np.int64))[0].tolist() == wanted


def test_flags_and_data_must_agree(sft: list[str], edit: Any, packed: Callable[[bool], Path]) -> None:
    with pytest.raises(BadInput, match="was packed with --neat-pack"):
        batch_of(edit.changed(sft, data_path=packed(True)))
    with pytest.raises(BadInput, match="was not packed with --neat-pack"):
        batch_of([*edit.changed(sft, data_path=packed(False)), *NEAT])


def test_what_exceeds_the_sequence_is_cut_off_at_the_end(sft: list[str], edit: Any, packed: Callable[[bool], Path]) -> None:
    whole = batch_of([*edit.changed(sft, data_path=packed(True)), *NEAT])
    cut = batch_of([*edit.changed(sft, data_path=packed(True), seq_length=96), *NEAT])
    assert torch.equal(cut.tokens, whole.tokens[:, :96])
    assert torch.equal(cut.documents, whole.documents[:, :96])


class TestPretraining:
    """Megatron's three flags; a token that these texts hold plays the end token of --append-eod."""

    def test_each_does_its_own(self, pretrain: list[str], edit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        argv = edit.changed(pretrain, train_iters=2, seq_length=64)
        plain = batch_of(argv)
        assert plain.positions is plain.documents is None
        end = int(plain.tokens.flatten().mode().values)
        monkeypatch.setattr(Tokenizer, "eos_token_id", property(lambda self: end))
        ended = plain.tokens == end
        positions = batch_of([*argv, "--reset-position-ids"])  # for learnt position embeddings only
        assert positions.positions is positions.documents is None
        mask = batch_of([*argv, "--reset-attention-mask"])
        assert mask.positions is None
        both = batch_of([*argv, "--reset-attention-mask", "--reset-position-ids"])
        assert both.positions.tolist() == [originals_positions(row, eos=end) for row in plain.tokens.tolist()]
        assert torch.equal(both.documents, mask.documents)
        assert torch.equal(mask.documents[:, 1:] - mask.documents[:, :-1], ended[:, :-1].long())
        learnt = batch_of([*argv, "--eod-mask-loss"])
        assert torch.equal(learnt.labels == IGNORE_INDEX, (plain.labels == IGNORE_INDEX) | ended)


def test_documents_in_the_model(spec: ModelSpec, both: Callable[[ModelSpec], Any]) -> None:
    model, _ = both(spec)
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])
    documents, positions = torch.tensor([[1, 1, 1, 2, 2]]), torch.tensor([[0, 1, 2, 0, 1]])
    together = model.hidden_states(torch.cat([first, second], dim=1), positions=positions, documents=documents)
    apart = torch.cat([model.hidden_states(first), model.hidden_states(second)], dim=1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


def test_unpacked_records_are_untouched(sft: list[str], golden: Path) -> None:
    batch = batch_of(sft)
    assert batch.positions is batch.documents is None
    dataset = InstructionDataset(golden / "data" / "outputs" / "alpaca_mapkeys" / "d", 512)
    assert batch.num_tokens == sum(len(dataset[record]["input_ids"]) for record in batch.records)
