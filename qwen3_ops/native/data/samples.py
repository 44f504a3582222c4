"""Records to token ids: the two kinds of data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qwen3_ops.native.data.conversation import Turn, Unusable, check_text, render
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.handlers import instruction_handler
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.sinks import IDS, LABELS, MASK, Ids
from qwen3_ops.native.data.templates import TEMPLATES, Slots, Special, Token
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.trainer_view import IGNORE_INDEX, fit_turn

_EASILY_FORGOTTEN = ("system", "history", "tools")

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Token ids by output file; how many tokens that is, and how many of them are trained."""

    ids: Mapping[str, Ids]
    tokens: int
    trainable: int
    cut: bool = False


class Encoder(Protocol):
    """Makes samples of records."""

    @property
    def columns(self) -> Sequence[str]:
        """Read from the data; each must be there."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the .bin/.idx pairs, between prefix and ``_document``."""

    @property
    def columns_remedy(self) -> str:
        """What to do when a column is not there."""

    def encode(self, rows: Sequence[tuple[int, Record]], ledger: Ledger) -> Iterator[tuple[int, Sample]]:
        """(row, sample) of every usable record, in order; the ledger hears of the others."""

    def unmapped(self, columns: Iterable[str]) -> list[str]:
        """Columns of the data that are likely to be meant, but are not read."""


class InstructionEncoder:
    """Conversations: every answer is trained, prompts are not."""

    outputs = (IDS, MASK, LABELS)
    columns_remedy = 'Name the right ones with --map-keys; \'{"query": ""}\' there switches a column off.'

    def __init__(self, flags: PreprocessFlags, tokenizer: Tokenizer, prompt_type: str) -> None:
        keys = key_map(flags.handler_name, flags.map_keys)
        self.columns = keys.used_columns
        self._handler = instruction_handler(flags.handler_name, keys)
        self._template = TEMPLATES[prompt_type]
        self._tokenizer = tokenizer
        self._append_eod = flags.append_eod
        self._limit = flags.seq_length - 1 if flags.neat_pack and flags.seq_length else None

    def unmapped(self, columns: Iterable[str]) -> list[str]:
        return [name for name in _EASILY_FORGOTTEN if name in columns and name not in self.columns]

    def encode(self, rows: Sequence[tuple[int, Record]], ledger: Ledger) -> Iterator[tuple[int, Sample]]:
        rendered: list[tuple[int, list[Turn]]] = []
        for row, record in rows:
            try:
                conversation = self._handler(record)
                turns = list(render(conversation, self._template))
                check_text(slot for turn in turns for slot in (*turn.source, *turn.target) if isinstance(slot, str))
            except Unusable as reason:
                ledger.dropped[str(reason)].add(row)
                continue
            rendered.append((row, turns))
            for note in dict.fromkeys(conversation.notes):
                ledger.notes[note].add(row)
        ids = self._encode_elements(turn for _, turns in rendered for turn in turns)
        for row, turns in rendered:
            sample = self._join(turns, ids)
            if sample is None:
                ledger.dropped["no text at all"].add(row)
            else:
                if sample.cut:
                    ledger.notes["cut to fit into --seq-length"].add(row)
                yield row, sample

    def _encode_elements(self, turns: Iterable[Turn]) -> dict[str, list[int]]:
        """Ids of every different text: markers and separators are encoded once a batch."""
        texts = list({slot: None for turn in turns for slot in (*turn.source, *turn.target) if isinstance(slot, str) and slot})
        return dict(zip(texts, self._tokenizer.encode_batch(texts), strict=True))

    def _join(self, turns: Sequence[Turn], encoded: Mapping[str, list[int]]) -> Sample | None:
        eos = self._tokenizer.eos_token_id
        joined: list[int] = []
        prompts: list[tuple[int, int]] = []
        whole = 0
        for turn in turns:
            source, target = self._ids(turn.source, encoded), self._ids(turn.target, encoded)
            whole += len(source) + len(target)
            if self._limit is not None:
                kept, answered = fit_turn(len(source), len(target), self._limit)
                source, target = source[:kept], target[:answered]
            prompts.append((len(joined), len(joined) + len(source)))
            joined += source + target
        if not whole:
            return None
        endings = [eos] * (self._template.efficient_eos + self._append_eod)
        input_ids = np.array(joined + endings, dtype=np.int32)
        labels = input_ids.copy()
        for number, (start, end) in enumerate(prompts):
            labels[start:end] = IGNORE_INDEX
            if number and start < end and self._template.efficient_eos:
                labels[start] = eos
        if self._limit is not None and len(input_ids) > self._limit + 1:  # several turns, each cut by itself
            input_ids, labels = input_ids[: self._limit], labels[: self._limit]
        return Sample(
            ids={IDS: input_ids, MASK: np.ones_like(input_ids), LABELS: labels},
            tokens=len(input_ids),
            trainable=int(np.count_nonzero(labels != IGNORE_INDEX)),
            cut=len(input_ids) < whole + len(endings),
        )

    def _ids(self, slots: Slots, encoded: Mapping[str, list[int]]) -> list[int]:
        ids: list[int] = []
        for slot in slots:
            if isinstance(slot, str):
                ids += encoded[slot] if slot else []
            elif isinstance(slot, Token):
                ids.append(self._tokenizer.id_of(slot.text))
            elif slot is Special.EOS:
                ids.append(self._tokenizer.eos_token_id)
            elif self._tokenizer.bos_token_id is not None:
                ids.append(self._tokenizer.bos_token_id)
        return ids


class PretrainEncoder:
    """Plain texts, one pair of files a column."""

    columns_remedy = "Name the right ones with --json-keys."

    def __init__(self, flags: PreprocessFlags, tokenizer: Tokenizer) -> None:
        self.columns = self.outputs = flags.json_keys
        self._tokenizer = tokenizer
        self._unit = flags.pad_to_multiple_of
        self._end = [tokenizer.eos_token_id] if flags.append_eod else []

    def unmapped(self, columns: Iterable[str]) -> list[str]:
        return []

    def encode(self, rows: Sequence[tuple[int, Record]], ledger: Ledger) -> Iterator[tuple[int, Sample]]:
        usable = [(row, texts) for row, record in rows if (texts := self._texts(row, record, ledger))]
        encoded = {
            name: self._tokenizer.encode_batch([texts[name] for _, texts in usable], add_special_tokens=True) for name in self.columns
        }
        for place, (row, texts) in enumerate(usable):
            ids = {name: self._padded(encoded[name][place]) for name in self.columns if texts[name]}
            tokens = sum(map(len, ids.values()))
            yield row, Sample(ids=ids, tokens=tokens, trainable=tokens)

    def _texts(self, row: int, record: Record, ledger: Ledger) -> dict[str, str]:
        """The record's texts by column; none when it can not be used."""
        texts = {name: record.get(name) for name in self.columns}
        try:
            check_text(texts.values())
            if any(texts.values()):
                return {name: str(text) for name, text in texts.items()}
            raise Unusable("empty text")
        except Unusable as reason:
            ledger.dropped[str(reason)].add(row)
        return {}

    def _padded(self, ids: list[int]) -> list[int]:
        """With ``--pad-to-multiple-of``, a whole unit more where the length is a multiple already: the original's rule."""
        if self._unit == 1:
            return ids + self._end
        missing = self._unit - len(ids) % self._unit - len(self._end)
        return ids + [self._tokenizer.vocabulary_size] * missing + self._end
