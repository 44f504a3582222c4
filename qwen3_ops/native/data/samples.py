"""Records to token ids: the two kinds of data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.blocks import BlockBuilder, Encoded, Record, Rows, Sample
from qwen3_ops.native.data.conversation import Turn, Unusable, check_text, is_unicode, render
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.handlers import instruction_handler
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.templates import TEMPLATES, Slot, Special
from qwen3_ops.native.data.text_readers import Unreadable
from qwen3_ops.native.data.tokenizer import INT32, Ids, Tokenizer, to_ids
from qwen3_ops.native.data.turns import fit_turn

_WORTH_TIKTOKEN = 4 << 20  # bytes of input that take tokenizers as long as it takes to load and to compare tiktoken


class Rendered(NamedTuple):
    """A record as elements, and what is to be noted of it if it is written."""

    row: int
    record: Record
    turns: list[Turn]
    notes: Iterable[str]


def open_tokenizer(flags: PreprocessFlags, *, size: int) -> tuple[Tokenizer, list[str]]:
    """The tokenizer for an input of ``size`` bytes, with the template taken over; and the tokens its vocabulary was extended by.

    Raises:
        BadInput: it can not be read, lacks the template's tokens, or tiktoken was asked for and would not give its ids.
    """
    tokenizer = Tokenizer(flags.tokenizer_name_or_path)
    added = [] if flags.prompt_type is None else tokenizer.use_template(flags.prompt_type)
    if flags.tokenizer_backend == "tiktoken":
        tokenizer.use_tiktoken()
    elif flags.tokenizer_backend == "auto" and size >= _WORTH_TIKTOKEN:
        with suppress(BadInput):
            tokenizer.use_tiktoken()
    return tokenizer, added


class Encoder(Protocol):
    """Makes sequences of records: the same for a record wherever its batch begins and ends."""

    def encode(self, rows: Rows) -> Encoded: ...


def make_encoder(flags: PreprocessFlags, tokenizer: Tokenizer) -> Encoder:
    """For the kind of data that ``flags`` ask for. ``tokenizer`` has taken over the template."""
    if flags.prompt_type is None:
        return PretrainEncoder(flags, tokenizer)
    return InstructionEncoder(flags, tokenizer, flags.prompt_type)


class InstructionEncoder:
    """Conversations: every answer is trained, prompts are not."""

    def __init__(self, flags: PreprocessFlags, tokenizer: Tokenizer, prompt_type: str) -> None:
        self._handler = instruction_handler(flags.handler_name, key_map(flags.handler_name, flags.map_keys))
        self._template = TEMPLATES[prompt_type]
        self._tokenizer = tokenizer
        self._flags = flags
        bos, eos = tokenizer.bos_token_id, to_ids([tokenizer.eos_token_id])
        self._named: dict[Slot, Ids] = {Special.EOS: eos, Special.BOS: b"" if bos is None else to_ids([bos])}
        self._named |= {token: to_ids([tokenizer.id_of(token.text)]) for token in self._template.tokens}
        self._eos_between = eos if self._template.efficient_eos else None
        self._endings = eos * (self._template.efficient_eos + flags.append_eod)
        self._limit = flags.seq_length - 1 if flags.neat_pack and flags.seq_length else None

    def encode(self, rows: Rows) -> Encoded:
        ledger = Ledger(records=len(rows))
        rendered = self._render(_readable(rows, ledger), ledger)
        texts = _texts(rendered)
        if not is_unicode("".join(texts)):  # half characters are rare: one look at the whole batch
            rendered = _unicode_only(rendered, ledger)
            texts = _texts(rendered)
        ids: dict[Slot, Ids] = {**self._named, **dict(zip(texts, self._tokenizer.encode_batch(texts), strict=True))}
        builder = BlockBuilder(self._eos_between)
        for row, record, turns, notes in rendered:
            sample = self._join(turns, ids)
            if sample is None:
                ledger.drop(row, "no text at all", record)
                continue
            too_long = _too_long(self._flags, sample.length)
            if too_long is not None:
                ledger.drop(row, too_long, record, asked_for=True)
                builder.leave_out()
                continue
            if sample.cut:
                ledger.truncated += 1
                ledger.note(row, "cut to fit into --seq-length", record)
            for note in notes:
                ledger.note(row, note, record)
            builder.add_labelled(row, sample)
        return builder.instructions(ledger)

    def _render(self, rows: Iterable[tuple[int, Record]], ledger: Ledger) -> list[Rendered]:
        rendered = []
        for row, record in rows:
            try:
                conversation = self._handler(record)
                turns = render(conversation, self._template)
            except Unusable as reason:
                ledger.drop(row, str(reason), record)
                continue
            rendered.append(Rendered(row, record, turns, dict.fromkeys(conversation.notes)))
        return rendered

    def _join(self, turns: Sequence[Turn], ids: Mapping[Slot, Ids]) -> Sample | None:
        """One sequence of all turns; None when there is nothing in it."""
        parts = [b"".join([ids[slot] for slot in slots]) for turn in turns for slots in turn]
        if not any(parts):
            return None
        if self._limit is None:
            parts[-1] += self._endings
            return Sample(parts)
        whole = sum(map(len, parts))
        for place in range(0, len(parts), 2):
            source, target = parts[place : place + 2]
            kept, answered = fit_turn(len(source) // INT32, len(target) // INT32, self._limit)
            parts[place : place + 2] = source[: kept * INT32], target[: answered * INT32]
        cut = sum(map(len, parts)) < whole
        parts[-1] += self._endings
        if Sample(parts).length > self._limit + 1:  # several turns, each cut by itself
            parts, cut = _cut(parts, self._limit), True
        return Sample(parts, cut)


class PretrainEncoder:
    """Plain texts, one pair of files a column."""

    def __init__(self, flags: PreprocessFlags, tokenizer: Tokenizer) -> None:
        self._columns = flags.json_keys
        self._flags = flags
        self._tokenizer = tokenizer
        self._end = to_ids([tokenizer.eos_token_id] if flags.append_eod else [])
        self._padding = to_ids([tokenizer.vocabulary_size])

    def encode(self, rows: Rows) -> Encoded:
        ledger = Ledger(records=len(rows))
        usable = [(row, record, texts) for row, record in _readable(rows, ledger) if (texts := self._texts(row, record, ledger))]
        encoded = {
            name: self._tokenizer.encode_batch([texts[name] for _, _, texts in usable], add_special_tokens=True) for name in self._columns
        }
        builders = {name: BlockBuilder() for name in self._columns}
        for place, (row, record, texts) in enumerate(usable):
            ids = {name: self._padded(encoded[name][place]) for name in self._columns if texts[name]}
            longest = max(map(len, ids.values())) // INT32
            too_long = _too_long(self._flags, longest)
            if too_long is not None:
                ledger.drop(row, too_long, record, asked_for=True)
            for name, tokens in ids.items():
                if too_long is None:
                    builders[name].add(row, Sample([b"", tokens]))
                else:
                    builders[name].leave_out()
            if too_long is None:
                length = sum(map(len, ids.values())) // INT32
                ledger.write([length], trainable=length)
        first = next((builder.first() for builder in builders.values() if builder.rows), None)
        return Encoded(blocks={name: builder.block() for name, builder in builders.items()}, ledger=ledger, first=first)

    def _texts(self, row: int, record: Record, ledger: Ledger) -> dict[str, str]:
        """The record's texts by column; none when it can not be used."""
        texts = {name: record.get(name) for name in self._columns}
        try:
            check_text(texts.values())
        except Unusable as reason:
            ledger.drop(row, str(reason), record)
            return {}
        if any(texts.values()):
            return {name: str(text) for name, text in texts.items()}
        ledger.drop(row, "empty text", record, asked_for=True)
        return {}

    def _padded(self, ids: Ids) -> Ids:
        """With ``--pad-to-multiple-of``, a whole unit more where the length is a multiple already: the original's rule."""
        unit = self._flags.pad_to_multiple_of
        if unit == 1:
            return ids + self._end
        missing = unit - len(ids) // INT32 % unit - len(self._end) // INT32
        return ids + self._padding * missing + self._end


def _texts(rendered: Iterable[Rendered]) -> list[str]:
    """Every different text: markers and separators are encoded once a batch."""
    slots = dict.fromkeys(slot for item in rendered for turn in item.turns for slots in turn for slot in slots)
    return [slot for slot in slots if isinstance(slot, str)]


def _unicode_only(rendered: Iterable[Rendered], ledger: Ledger) -> list[Rendered]:
    kept = []
    for item in rendered:
        if is_unicode("".join(_texts([item]))):
            kept.append(item)
        else:
            ledger.drop(item.row, "text is not valid Unicode", item.record)
    return kept


def _readable(rows: Rows, ledger: Ledger) -> Iterator[tuple[int, Record]]:
    for row, record in rows:
        if isinstance(record, Unreadable):
            ledger.drop(row, "not readable as a record", record)
        else:
            yield row, record


def _too_long(flags: PreprocessFlags, length: int) -> str | None:
    """Why a record of ``length`` tokens is dropped: the original's two rules."""
    size = flags.seq_length
    if size is None or length < size or (flags.pack and length == size):
        return None
    return f"more than {size} tokens" if flags.pack else f"{size} tokens or more"


def _cut(parts: Iterable[Ids], limit: int) -> list[Ids]:
    """The first ``limit`` tokens."""
    kept, room = [], limit * INT32
    for part in parts:
        kept.append(part[:room])
        room -= len(kept[-1])
    return kept
