"""Records to token ids: the two kinds of data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from qwen3_ops.native.data.blocks import BlockBuilder, Encoded, Record, Rows, Sample
from qwen3_ops.native.data.conversation import Turn, Unusable, check_text, is_unicode, render
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.handlers import instruction_handler
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.templates import TEMPLATES, Slots, Special, Token
from qwen3_ops.native.data.text_readers import Unreadable
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.turns import fit_turn


class Rendered(NamedTuple):
    """A record as elements, and what is to be noted of it if it is written."""

    row: int
    record: Record
    turns: list[Turn]
    notes: Iterable[str]

    @property
    def text(self) -> str:
        return "".join([text for turn in self.turns for text in turn.texts])


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
        bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._special = {Special.EOS: [self._eos], Special.BOS: [] if bos is None else [bos]}
        self._endings = [self._eos] * (self._template.efficient_eos + flags.append_eod)
        self._limit = flags.seq_length - 1 if flags.neat_pack and flags.seq_length else None

    def encode(self, rows: Rows) -> Encoded:
        ledger = Ledger(records=len(rows))
        rendered = _unicode_only(self._render(_readable(rows, ledger), ledger), ledger)
        encoded = self._encode_elements(turn for item in rendered for turn in item.turns)
        builder = BlockBuilder()
        for row, record, turns, notes in rendered:
            sample = self._join(turns, encoded)
            if sample is None:
                ledger.drop(row, "no text at all", record)
                continue
            too_long = _too_long(self._flags, len(sample.tokens))
            if too_long is not None:
                ledger.drop(row, too_long, record, asked_for=True)
                builder.leave_out()
                continue
            if sample.cut:
                ledger.truncated += 1
                ledger.note(row, "cut to fit into --seq-length", record)
            for note in notes:
                ledger.note(row, note, record)
            builder.add(row, sample)
        return builder.instructions(ledger, eos=self._eos)

    def _render(self, rows: Iterable[tuple[int, Record]], ledger: Ledger) -> list[Rendered]:
        rendered = []
        for row, record in rows:
            try:
                conversation = self._handler(record)
                turns = list(render(conversation, self._template))
            except Unusable as reason:
                ledger.drop(row, str(reason), record)
                continue
            rendered.append(Rendered(row, record, turns, dict.fromkeys(conversation.notes)))
        return rendered

    def _encode_elements(self, turns: Iterable[Turn]) -> dict[str, list[int]]:
        """Ids of every different text: markers and separators are encoded once a batch."""
        texts = [text for text in dict.fromkeys(text for turn in turns for text in turn.texts) if text]
        return dict(zip(texts, self._tokenizer.encode_batch(texts), strict=True))

    def _join(self, turns: Sequence[Turn], encoded: Mapping[str, list[int]]) -> Sample | None:
        """One sequence of all turns; None when there is nothing in it."""
        tokens: list[int] = []
        runs: list[int] = []
        whole = 0
        for turn in turns:
            source, target = self._ids(turn.source, encoded), self._ids(turn.target, encoded)
            whole += len(source) + len(target)
            if self._limit is not None:
                kept, answered = fit_turn(len(source), len(target), self._limit)
                source, target = source[:kept], target[:answered]
            runs += (len(source), len(target))
            tokens += source
            tokens += target
        if not whole:
            return None
        tokens += self._endings
        runs[-1] += len(self._endings)
        if self._limit is not None and len(tokens) > self._limit + 1:  # several turns, each cut by itself
            tokens, runs = tokens[: self._limit], _cut_runs(runs, self._limit)
        cut = len(tokens) < whole + len(self._endings)
        return Sample(tokens=tokens, runs=runs, eos_between=self._template.efficient_eos, cut=cut)

    def _ids(self, slots: Slots, encoded: Mapping[str, list[int]]) -> list[int]:
        ids: list[int] = []
        for slot in slots:
            if isinstance(slot, str):
                if slot:
                    ids += encoded[slot]
            elif isinstance(slot, Token):
                ids.append(self._tokenizer.id_of(slot.text))
            else:
                ids += self._special[slot]
        return ids


class PretrainEncoder:
    """Plain texts, one pair of files a column."""

    def __init__(self, flags: PreprocessFlags, tokenizer: Tokenizer) -> None:
        self._columns = flags.json_keys
        self._flags = flags
        self._tokenizer = tokenizer
        self._end = [tokenizer.eos_token_id] if flags.append_eod else []

    def encode(self, rows: Rows) -> Encoded:
        ledger = Ledger(records=len(rows))
        usable = [(row, record, texts) for row, record in _readable(rows, ledger) if (texts := self._texts(row, record, ledger))]
        encoded = {
            name: self._tokenizer.encode_batch([texts[name] for _, _, texts in usable], add_special_tokens=True) for name in self._columns
        }
        builders = {name: BlockBuilder() for name in self._columns}
        for place, (row, record, texts) in enumerate(usable):
            ids = {name: self._padded(encoded[name][place]) for name in self._columns if texts[name]}
            too_long = _too_long(self._flags, max(map(len, ids.values())))
            if too_long is not None:
                ledger.drop(row, too_long, record, asked_for=True)
            for name, tokens in ids.items():
                if too_long is None:
                    builders[name].add(row, Sample(tokens=tokens, runs=[0, len(tokens)]))
                else:
                    builders[name].leave_out()
            if too_long is None:
                ledger.write([sum(map(len, ids.values()))], trainable=sum(map(len, ids.values())))
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

    def _padded(self, ids: list[int]) -> list[int]:
        """With ``--pad-to-multiple-of``, a whole unit more where the length is a multiple already: the original's rule."""
        unit = self._flags.pad_to_multiple_of
        if unit == 1:
            return ids + self._end
        missing = unit - len(ids) % unit - len(self._end)
        return ids + [self._tokenizer.vocabulary_size] * missing + self._end


def _unicode_only(rendered: list[Rendered], ledger: Ledger) -> list[Rendered]:
    """Half characters are rare: one look at the whole batch, and at each record only when there is one."""
    if is_unicode("".join([item.text for item in rendered])):
        return rendered
    kept = []
    for item in rendered:
        if is_unicode(item.text):
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


def _cut_runs(runs: Sequence[int], limit: int) -> list[int]:
    kept = []
    for run in runs:
        kept.append(min(run, limit))
        limit -= kept[-1]
    return kept
