"""What training sees of a data set: order, cutting, collation, split. numpy only.

Labels of fine-tuning are not shifted (the loss shifts them); labels of pre-training are the next token.
Sources: ``decoder_packed_mtf_dataset.py`` and the collator of MindSpeed-LLM 2.1.0, ``gpt_dataset.py`` of
Megatron-LM core_r0.8.0.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.order_cache import OrderCache
from qwen3_ops.native.data.turns import IGNORE_INDEX, fit_turn

Sample = Mapping[str, NDArray[np.int64]]

_PADDING = {"attention_mask": 0, "labels": IGNORE_INDEX, "documents": 0}
_SEPARATE_LAST_EPOCH_BELOW = 0.80  # GPTDataset: a last epoch used to less than this is shuffled by itself


class InstructionDataset:
    """Fine-tuning records under ``prefix``: ``prefix_packed_{input_ids,labels}_document``.

    Item i: ``input_ids``, ``attention_mask`` (ones), ``labels``, each [length] int64 with
    length <= ``seq_length``: longer records are cut turn by turn, see :func:`cut_turns`.

    Attributes:
        ids_prefix: of the .bin/.idx pair with the ids.
    """

    def __init__(self, prefix: Path, seq_length: int) -> None:
        self.seq_length = seq_length
        self.ids_prefix = prefix.with_name(f"{prefix.name}_packed_input_ids_document")
        self._input_ids = IndexedDataset(self.ids_prefix)
        self._labels = IndexedDataset(prefix.with_name(f"{prefix.name}_packed_labels_document"))
        if not np.array_equal(self._input_ids.sequence_lengths, self._labels.sequence_lengths):
            raise BadInput("input_ids and labels differ in their lengths", value=prefix, remedy="Make the data set again.")
        if not len(self):
            raise BadInput("the data set is empty", value=prefix)

    def __len__(self) -> int:
        return len(self._input_ids)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        input_ids = self._input_ids[index].astype(np.int64)
        labels = self._labels[index].astype(np.int64)
        if len(input_ids) > self.seq_length:
            kept = cut_turns(labels, self.seq_length)
            input_ids, labels = input_ids[kept], labels[kept]
        return {"input_ids": input_ids, "attention_mask": np.ones_like(input_ids), "labels": labels}


def cut_turns(labels: NDArray[np.int64], limit: int) -> NDArray[np.bool_]:
    """Which tokens of a record stay when ``limit`` are allowed.

    A turn is a run of untrained tokens and the trained run behind it. Turn after turn takes what it
    needs; the one that does not fit is cut at the ends of both its runs, and the rest is dropped.
    """
    trained = labels != IGNORE_INDEX
    borders = [0, *(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(labels)]
    if trained[0]:
        borders.insert(0, 0)
    kept = np.zeros(len(labels), dtype=np.bool_)
    for start, middle, end in zip(borders[0::2], borders[1::2], [*borders[2::2], len(labels)], strict=False):
        if limit <= 0:
            break
        source, target = fit_turn(middle - start, end - middle, limit)
        kept[start : start + source] = True
        kept[middle : middle + target] = True
        limit -= source + target
    return kept


def shuffled_order(num_documents: int, num_samples: int, seed: int, *, multiple_of: int = 1, shuffle: bool = True) -> NDArray[np.int64]:
    """Document of each sample: whole epochs, each a new shuffle, until there are ``num_samples``.

    Args:
        multiple_of: epochs are filled up with the first documents to such a length (``--padded-samples``).
        shuffle: False for the documents' own order (``--no-shuffle``).
    """
    random = np.random.RandomState(seed)
    length = -(-num_documents // multiple_of) * multiple_of
    epochs = []
    for _ in range(max(1, -(-num_samples // length))):
        epoch = np.arange(length, dtype=np.int64) % num_documents
        if shuffle:
            random.shuffle(epoch)
        epochs.append(epoch)
    return np.concatenate(epochs)


def collate(
    samples: Sequence[Sample], *, pad_token_id: int, pad_to_multiple_of: int, fixed_length: int | None
) -> dict[str, NDArray[np.int64]]:
    """Pad on the right to one [samples, length] array each.

    ``length`` is the longest sample's rounded up to ``pad_to_multiple_of``, or to ``fixed_length``
    when that is given (no ``--variable-seq-lengths``).
    """
    unit = fixed_length or pad_to_multiple_of
    longest = max(len(sample["input_ids"]) for sample in samples)
    length = -(-longest // unit) * unit
    batch = {}
    for name in samples[0]:
        padding = _PADDING.get(name, pad_token_id)
        batch[name] = np.full((len(samples), length), padding, dtype=np.int64)
        for row, sample in zip(batch[name], samples, strict=True):
            row[: len(sample[name])] = sample[name]
    return batch


def split_bounds(split: str, size: int) -> list[range]:
    """Documents of train, validation and test for a ``--split`` such as ``949,50,1`` (fine-tuning)."""
    bounds = [0]
    for part in _fractions(split):
        bounds.append(bounds[-1] + round(part * size))
    surplus = bounds[-1] - size
    return [range(start, end) for start, end in itertools.pairwise([0, *(bound - surplus for bound in bounds[1:])])]


def pretrain_split_bounds(split: str, size: int) -> list[range]:
    """As :func:`split_bounds`, with pre-training's rounding: of the running total, not of each part."""
    bounds = [0, *(round(total * size) for total in itertools.accumulate(_fractions(split)))]
    return [range(start, end) for start, end in itertools.pairwise(bounds)]


def _fractions(split: str) -> list[float]:
    try:
        parts = [float(part) for part in split.replace("/", ",").split(",")]
    except ValueError:
        parts = []
    if not 0 < len(parts) <= 3 or min(parts) < 0 or sum(parts) <= 0:
        raise BadInput("not a split", value=split, source="--split", remedy="Give three weights, such as 949,50,1.")
    return [part / sum(parts) for part in [*parts, 0.0, 0.0][:3]]


class PretrainDataset:
    """Pre-training samples: the shuffled texts joined and cut every ``seq_length`` tokens.

    Item i: ``input_ids`` and ``labels`` (the next token), each [seq_length] int64. ``pad_token_id``
    in the text becomes token 0 and is not trained, as GPTDataset does it. GPTDataset's loss mask that
    stays zero at such a position for later samples is not imitated: it depends on the data loader's workers.

    Args:
        prefix: of the .bin/.idx pair, such as ``enwiki_text_document``.
        num_samples: how many are wanted; the texts are repeated as often as that takes.
        documents: the part of the texts to use; all when None.
        cache: where the order is kept for the next run; None: nowhere.
    """

    def __init__(
        self,
        prefix: Path,
        seq_length: int,
        num_samples: int,
        seed: int,
        *,
        documents: range | None = None,
        pad_token_id: int | None = None,
        cache: OrderCache | None = None,
    ) -> None:
        self._tokens = IndexedDataset(prefix)
        self.seq_length, self._pad = seq_length, pad_token_id
        part = range(len(self._tokens)) if documents is None else documents
        lengths = self._tokens.sequence_lengths[part.start : part.stop].astype(np.int64)
        per_epoch = int(lengths.sum())
        if per_epoch <= 1:
            raise BadInput("the data set has no text to train on", value=prefix)
        epochs = -(-(num_samples * seq_length + 1) // per_epoch)
        before_last = ((epochs - 1) * per_epoch - 1) // seq_length
        separate = epochs > 1 and num_samples - before_last < int(_SEPARATE_LAST_EPOCH_BELOW * ((per_epoch - 1) // seq_length))
        total = (epochs * per_epoch - 1) // seq_length

        def order() -> NDArray[np.int64]:
            """Of the documents, and behind it that of the samples."""
            random = np.random.RandomState(seed)
            texts = _shuffled([np.tile(np.array(part), n) for n in ((epochs - 1, 1) if separate else (epochs,))], random)
            return np.concatenate([texts, _shuffled(np.split(np.arange(total), [before_last] if separate else []), random)])

        cached = (cache or OrderCache(None, prefix)).get(
            "pretrain", order, documents=f"{part.start}..{part.stop}", length=seq_length, samples=num_samples, seed=seed
        )
        self.document_index, self.shuffle_index = np.split(cached, [epochs * len(part)])
        self._ends = np.cumsum(self._tokens.sequence_lengths[self.document_index], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.shuffle_index)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        start = int(self.shuffle_index[index]) * self.seq_length
        text = self._read(start, self.seq_length + 1).astype(np.int64)
        input_ids, labels = text[:-1].copy(), text[1:].copy()
        if self._pad is not None:
            input_ids[input_ids == self._pad] = 0
            labels[labels == self._pad] = IGNORE_INDEX
        return {"input_ids": input_ids, "labels": labels}

    def _read(self, start: int, count: int) -> NDArray[np.int32]:
        """``count`` tokens of the joined texts from token ``start`` on."""
        place = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        while count:
            offset = start - (int(self._ends[place - 1]) if place else 0)
            length = min(count, int(self._ends[place]) - start)
            pieces.append(self._tokens.get(int(self.document_index[place]), offset=offset, length=length))
            start, count, place = start + length, count - length, place + 1
        return np.concatenate(pieces)


def _shuffled(parts: Sequence[NDArray[np.int64]], random: np.random.RandomState) -> NDArray[np.int64]:
    for part in parts:
        random.shuffle(part)
    return np.concatenate(parts)
