"""``preprocess-data``: records in, Megatron's .bin/.idx and a ledger out, streamed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from qwen3_ops.artifacts import writing
from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.blocks import First, Rows
from qwen3_ops.native.data.closing import judge, publish, require_columns
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.inputs import Span, input_files, size_of, spans
from qwen3_ops.native.data.ledger import Example, Ledger
from qwen3_ops.native.data.parts import Part
from qwen3_ops.native.data.readers import read_batches
from qwen3_ops.native.data.recipe import Recipe
from qwen3_ops.native.data.samples import make_encoder, open_tokenizer
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.workers import encode_all, processes
from qwen3_ops.native.data.writer import open_writers
from qwen3_ops.verbs import Context, Outcome

_SHOWN = 1024  # tokens of the ledger's example


def run(flags: PreprocessFlags, ctx: Context) -> Outcome:
    """Write ``<prefix>_*_document.{bin,idx}`` and ``ledger.json``; with ``--shard`` a part and ``part.json``.

    Raises:
        BadInput: input or tokenizer can not be used, or no record is left. Nothing half-written stays.
        QualityGate: more records are lost than ``--max-dropped-ratio`` allows.
        Infrastructure: the disk is full, or a worker process died.
    """
    files = input_files(flags.input)
    share = spans(files, shard=flags.part)
    tokenizer, added = open_tokenizer(flags, size=size_of(share))
    if tokenizer.by_tiktoken:
        ctx.events.log("token ids by tiktoken, compared with tokenizers at the start")
    warnings = _warnings(flags, tokenizer, added)
    recipe = Recipe.of(flags, tokenizer)
    part = Part(shard=flags.part, files=[path.name for path in files], recipe=recipe, ledger=Ledger(warnings=warnings))
    job = _Job(flags, ctx, part, share, tokenizer)
    prefix = flags.output_prefix
    with writing(prefix):
        prefix.parent.mkdir(parents=True, exist_ok=True)
    if flags.shard is not None:
        job.write(prefix)
        return part.publish(prefix)
    if recipe.packing is None:
        job.write(prefix)
    else:
        with TemporaryDirectory(dir=prefix.parent, prefix=".unpacked.") as scratch:
            job.write(Path(scratch) / "part")
            part.ledger.sequences = recipe.packing.write(prefix, [Path(scratch) / "part"])
    return publish(prefix, part.ledger, about=part.about, ctx=ctx)


def _warnings(flags: PreprocessFlags, tokenizer: Tokenizer, added: list[str]) -> list[str]:
    """What the user should know of flags and tokenizer."""
    warnings = []
    if added:
        names = " ".join(added)
        warnings.append(f"prompt type {flags.prompt_type} added {names} behind the vocabulary's end: the model must have room for it")
    if flags.pad_to_multiple_of > 1:
        warnings.append(f"texts are padded with id {tokenizer.vocabulary_size}, which lies outside the vocabulary, as the original does")
    if flags.is_pretraining and len(flags.json_keys) > 1 and flags.seq_length is not None:
        warnings.append("a record too long in one of --json-keys is dropped from all; the original mixes records up where texts are empty")
    return warnings


class _Job:
    """One pass over the spans: everything is written to a prefix and told to the part's ledger."""

    def __init__(self, flags: PreprocessFlags, ctx: Context, part: Part, parts_of_files: list[Span], tokenizer: Tokenizer) -> None:
        self._flags, self._ctx, self._part, self._spans, self._tokenizer = flags, ctx, part, parts_of_files, tokenizer
        self._size = size_of(parts_of_files)

    def write(self, prefix: Path) -> None:
        ledger, outputs = self._part.ledger, self._part.recipe.outputs_of_parts
        encoder = make_encoder(self._flags, self._tokenizer)
        count = processes(self._flags, size=self._size)
        with open_writers(prefix, outputs) as writers:
            batches = self._batches()
            encoded = encode_all(batches, self._flags, encoder, count=count, size=self._size)
            with closing(batches), closing(encoded):
                for batch in encoded:
                    ledger.join(batch.ledger)
                    for name, writer in writers.items():
                        writer.add_block(batch.blocks[name])
                    if ledger.example is None and batch.first is not None:
                        ledger.example = self._example(batch.first)
                    if self._flags.strict and ledger.lost:
                        _refuse(ledger)
            ledger.sequences = writers[outputs[0]].sequences
            if self._flags.shard is None:
                given = "max_dropped_ratio" in self._flags.model_fields_set
                ratio = self._flags.max_dropped_ratio
                judge(ledger, self._part.recipe, about=self._part.about, ratio=ratio, ratio_is_given=given, ctx=self._ctx)

    def _batches(self) -> Generator[Rows, None, None]:
        """Records with their row numbers. Says how far it is, and what columns there are."""
        rows, ledger = 0, self._part.ledger
        with self._ctx.events.progress("preprocess-data", total=self._size // 1024 + 1, unit="kB") as progress:
            for span in self._spans:
                done = 0
                for batch in read_batches(span, wanted=self._part.recipe.columns):
                    ledger.see(span.path.name, batch.columns)
                    if batch.has_schema:
                        require_columns(span.path.name, list(batch.columns), self._part.recipe)
                    yield list(enumerate(batch.records, start=rows))
                    rows += len(batch.records)
                    read = int(batch.done * (span.stop - span.start)) // 1024
                    progress.advance(read - done, records=ledger.records, tokens=ledger.tokens)
                    done = read

    def _example(self, first: First) -> Example:
        """Runs of trained and other tokens, each as text."""
        tokens, trained = first.tokens[:_SHOWN], first.trained[:_SHOWN]
        borders = [0, *(place for place in range(1, len(trained)) if trained[place] != trained[place - 1]), len(trained)]
        parts = [
            (trained[start], self._tokenizer.decode(tokens[start:stop], skip_special_tokens=False))
            for start, stop in pairwise(borders) if start < stop
        ]  # fmt: skip
        return Example(row=first.row, parts=parts, cut=len(first.tokens) > _SHOWN)


def _refuse(ledger: Ledger) -> None:
    reason, tally = next((reason, tally) for reason, tally in ledger.dropped.items() if not tally.asked_for)
    raise BadInput(f"a record is lost: {reason}", value=f"row {tally.rows[0]}: {tally.examples[0]}", source="--strict")
