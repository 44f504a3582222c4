"""Gradient accumulation: however a batch is cut into micro batches and given to processes, the step is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.data.turns import IGNORE_INDEX
from qwen3_ops.native.training.batches import MicroBatch
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW
from qwen3_ops.native.training.step import Gradients, compute_gradients

SETTINGS = AdamSettings(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip_grad=1.0)
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence, with ``labels`` positions to learn at its end."""

    tokens: list[int]
    labels: int


def rows_of(vocabulary: int) -> st.SearchStrategy[list[Row]]:
    """Some sequences with equally many labels: only then a mean over micro batches is the mean over the batch."""

    def with_labels(labels: int) -> st.SearchStrategy[list[Row]]:
        tokens = st.lists(st.integers(0, vocabulary - 1), min_size=labels + 1, max_size=12)
        return st.lists(tokens.map(lambda ids: Row(tokens=ids, labels=labels)), min_size=1, max_size=8)

    return st.integers(1, 5).flatmap(with_labels)


def micro_batch(rows: list[Row], *, padding: int) -> MicroBatch:
    """Padded on the right to the longest row and ``padding`` further positions."""
    length = max(len(row.tokens) for row in rows) + padding
    tokens, labels = torch.zeros(len(rows), length, dtype=torch.long), torch.full((len(rows), length), IGNORE_INDEX)
    for number, row in enumerate(rows):
        end = len(row.tokens)
        tokens[number, :end] = torch.tensor(row.tokens)
        labels[number, end - 1 - row.labels : end - 1] = tokens[number, end - row.labels : end]
    return MicroBatch(
        tokens=tokens, labels=labels, records=(), num_tokens=sum(len(row.tokens) for row in rows), num_labels=len(rows) * rows[0].labels
    )


@dataclass(frozen=True, kw_only=True)
class Recording(World):
    """A process whose gradient is looked at before the others' are added."""

    seen: list[Tensor] = field(default_factory=list)

    def average(self, tensors: Iterable[Tensor]) -> None:
        self.seen.extend(tensor.clone() for tensor in tensors)


def gradients(model: Any, batches: list[MicroBatch]) -> tuple[Gradients, list[Tensor]]:
    optimizer = MixedPrecisionAdamW(model.named_parameters(), SETTINGS)
    world = Recording(device=CPU)
    made = compute_gradients(model, batches, count=len(batches), optimizer=optimizer, scale=LossScale(), world=world)
    optimizer.forget_gradients()
    return made, world.seen


def assert_same(one: tuple[Gradients, list[Tensor]], other: tuple[Gradients, list[Tensor]]) -> None:
    assert one[0].loss == pytest.approx(other[0].loss, abs=1e-5)
    assert one[0].tokens == other[0].tokens
    torch.testing.assert_close(one[0].norm, other[0].norm, rtol=1e-4, atol=1e-5)
    for first, second in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def model(spec: ModelSpec, both: Callable[[ModelSpec], Any]) -> Any:
    return both(spec)[0]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_gives_the_same_step(model: Any, data: st.DataObject) -> None:
    rows = data.draw(rows_of(97))
    sizes = [size for size in range(1, len(rows) + 1) if len(rows) % size == 0]
    size = data.draw(st.sampled_from(sizes))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches = [micro_batch(part, padding=data.draw(st.integers(0, 3))) for part in parts]
    assert_same(gradients(model, [micro_batch(rows, padding=0)]), gradients(model, data.draw(st.permutations(batches))))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_number_of_processes_gives_the_same_step(model: Any, data: st.DataObject) -> None:
    """Each process takes every size-th micro batch; the mean of their gradients is that of one process, rows of any lengths."""
    size = data.draw(st.sampled_from([2, 3]))
    count = size * data.draw(st.integers(1, 3))
    batches = [micro_batch(data.draw(rows_of(97)), padding=0) for _ in range(count)]
    alone, wanted = gradients(model, batches)
    shares = [gradients(model, batches[rank::size]) for rank in range(size)]
    assert sum(share.loss for share, _ in shares) / size == pytest.approx(alone.loss, abs=1e-5)
    for found, *others in zip(wanted, *(seen for _, seen in shares), strict=True):
        torch.testing.assert_close(found, torch.stack(others).mean(0), rtol=1e-3, atol=1e-5)


def test_the_mean_is_over_micro_batches_not_over_tokens(model: Any) -> None:
    """Megatron's rule: a micro batch of one label weighs as much as one of five."""
    few, many = micro_batch([Row(tokens=[1, 2, 3], labels=1)], padding=0), micro_batch([Row(tokens=list(range(9)), labels=5)], padding=0)
    losses = gradients(model, [few, many])[0].losses
    assert gradients(model, [few, many])[0].loss == pytest.approx(float(losses.mean()))
    assert losses[0] != losses[1]
    assert torch.equal(losses, torch.cat([gradients(model, [batch])[0].losses for batch in (few, many)]))


def test_a_micro_batch_without_labels_changes_nothing_but_the_mean(model: Any) -> None:
    batch = micro_batch([Row(tokens=list(range(9)), labels=5)], padding=0)
    empty = MicroBatch(tokens=batch.tokens, labels=torch.full_like(batch.labels, IGNORE_INDEX), records=(), num_tokens=9, num_labels=0)
    (_, whole), (_, halved) = gradients(model, [batch]), gradients(model, [empty, batch])
    for one, other in zip(whole, halved, strict=True):
        torch.testing.assert_close(one / 2, other)
    _, nothing = gradients(model, [empty])
    assert len(nothing) == len(whole), "every process has a gradient of every weight"
    assert not any(gradient.any() for gradient in nothing)
