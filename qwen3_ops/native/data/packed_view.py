"""What training sees of sequences that hold several documents: which document each token belongs to, and its place there.

Sources: ``decoder_packed_mtf_dataset.py`` of MindSpeed-LLM 2.1.0, ``gpt_dataset.py`` of Megatron-LM core_r0.8.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.trainer_view import InstructionDataset

_LOOKED_AT = 64  # sequences that tell how a data set was packed


class PackedDataset(InstructionDataset):
    """Packed fine-tuning records.

    Item i: ``input_ids``, ``labels`` and ``documents``, each [length] int64; what exceeds ``seq_length``
    is cut off at the end. ``documents`` numbers the records of the sequence from 1; 0 is padding.

    Args:
        eos: a document ends with every such token, as the original has it without ``--neat-pack``;
            None: the mask of the data says it (``--neat-pack``).

    Raises:
        BadInput: ``eos`` is None and the data was not prepared with ``--neat-pack``.
    """

    def __init__(self, prefix: Path, seq_length: int, *, eos: int | None) -> None:
        super().__init__(prefix, seq_length)
        self._eos = eos
        self._mask = IndexedDataset(mask_prefix(prefix))
        if eos is None and not is_neat(self._mask):
            raise BadInput("the data set was not packed with --neat-pack", value=prefix, remedy="Leave --neat-pack out, or pack it so.")

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        input_ids, labels = (part[index][: self.seq_length].astype(np.int64) for part in (self._input_ids, self._labels))
        documents = (
            self._mask[index][: self.seq_length].astype(np.int64) if self._eos is None else documents_by_eos(input_ids, eos=self._eos)
        )
        return {"input_ids": input_ids, "labels": labels, "documents": documents}


def mask_prefix(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}_packed_attention_mask_document")


def is_neat(mask: IndexedDataset) -> bool:
    """Whether ``--neat-pack`` made the mask: it numbers the records of a sequence and is 0 on padding."""
    return any((mask[index] != 1).any() for index in range(min(len(mask), _LOOKED_AT)))


def documents_by_eos(input_ids: NDArray[np.int64], *, eos: int) -> NDArray[np.int64]:
    """Numbers from 1; an ``eos`` belongs to the document that it ends. Works along the last dimension."""
    ends = (input_ids == eos).astype(np.int64)
    documents: NDArray[np.int64] = 1 + np.cumsum(ends, axis=-1) - ends
    return documents


def positions_in(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each token of [samples, length] in its document, from 0; 0 on padding (document 0)."""
    places = np.arange(documents.shape[-1])
    begins = np.diff(documents, axis=-1, prepend=-1) != 0
    starts = np.maximum.accumulate(np.where(begins, places, 0), axis=-1)
    return np.where(documents > 0, places - starts, 0)
