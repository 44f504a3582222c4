"""``preprocess-data``: records in, Megatron's .bin/.idx and a ledger out, streamed."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from qwen3_ops.artifacts import write_atomically, writing
from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.flags import PreprocessFlags
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.readers import Batch, input_files, read_batches
from qwen3_ops.native.data.samples import Encoder, InstructionEncoder, PretrainEncoder
from qwen3_ops.native.data.sinks import PackingSink, PlainSink, Sink
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.verbs import Context, Outcome


def run(flags: PreprocessFlags, ctx: Context) -> Outcome:
    """Write ``<prefix>_*_document.{bin,idx}`` and ``<prefix>_ledger.json``.

    Raises:
        BadInput: input or tokenizer can not be used, or no record is left. Nothing half-written stays.
        Infrastructure: the disk is full.
    """
    files = input_files(flags.input)
    tokenizer = Tokenizer(flags.tokenizer_name_or_path)
    facts = {
        "prompt_type": flags.prompt_type,
        "handler_name": flags.handler_name,
        "tokenizer_sha256": tokenizer.sha256,
        "output_prefix": flags.output_prefix.name,
        "seq_length": flags.seq_length,
        "append_eod": flags.append_eod,
        "pack": flags.pack,
        "neat_pack": flags.neat_pack,
        "map_keys": flags.map_keys,
        "json_keys": list(flags.json_keys) if flags.is_pretraining else None,
    }
    ledger = Ledger(about={**facts, "files": [path.name for path in files]})
    encoder = _encoder(flags, tokenizer, ledger)
    with writing(flags.output_prefix):
        flags.output_prefix.parent.mkdir(parents=True, exist_ok=True)
    with _sink(flags, encoder, tokenizer) as sink:
        _write_all(files, encoder, sink, ledger, ctx)
        if not ledger.written:
            raise BadInput("no record is left", value=f"{flags.input}\n{ledger.table()}", source="--input")
        ledger.sequences = sink.finish()
    with writing(flags.output_prefix):
        text = json.dumps(ledger.as_dict(), ensure_ascii=False, indent=2)
        write_atomically(flags.output_prefix.with_name(f"{flags.output_prefix.name}_ledger.json"), text + "\n")
    ctx.events.log(ledger.table())
    for warning in ledger.warnings:
        ctx.events.warning(warning)
    return Outcome(kind="dataset", facts=facts, metrics=ledger.metrics)


def _encoder(flags: PreprocessFlags, tokenizer: Tokenizer, ledger: Ledger) -> Encoder:
    if flags.prompt_type is None:
        if flags.pad_to_multiple_of > 1:
            ledger.warn(f"texts are padded with id {tokenizer.vocabulary_size}, which lies outside the vocabulary, as the original does")
        if len(flags.json_keys) > 1 and flags.seq_length is not None:
            ledger.warn("a record too long in one of --json-keys is dropped from all; the original mixes records up where texts are empty")
        return PretrainEncoder(flags, tokenizer)
    added = tokenizer.use_template(flags.prompt_type)
    if added:
        ledger.warn(f"prompt type {flags.prompt_type} added {' '.join(added)} behind the vocabulary's end: the model must have room for it")
    return InstructionEncoder(flags, tokenizer, flags.prompt_type)


def _sink(flags: PreprocessFlags, encoder: Encoder, tokenizer: Tokenizer) -> Sink:
    if flags.pack and flags.seq_length is not None:
        return PackingSink(flags.output_prefix, seq_length=flags.seq_length, pad_token_id=tokenizer.pad_token_id, neat=flags.neat_pack)
    return PlainSink(flags.output_prefix, encoder.outputs, seq_length=flags.seq_length)


def _write_all(files: list[Path], encoder: Encoder, sink: Sink, ledger: Ledger, ctx: Context) -> None:
    sizes = [path.stat().st_size // 1024 + 1 for path in files]
    with ctx.events.progress("preprocess-data", total=sum(sizes), unit="kB") as progress:
        for path, size in zip(files, sizes, strict=True):
            done = 0
            columns: Collection[str] = ()
            for batch in read_batches(path, wanted=encoder.columns):
                columns = batch.columns
                if batch.has_schema:
                    _check_columns(path, columns, encoder)
                _write_batch(batch, encoder, sink, ledger)
                progress.advance(int(size * batch.done) - done, records=ledger.records, tokens=ledger.tokens)
                done = int(size * batch.done)
            if columns:
                _check_columns(path, columns, encoder)
            for name in encoder.unmapped(columns):
                ledger.warn(f"the column {name} is not read: name it in --map-keys if it is meant")


def _check_columns(path: Path, columns: Collection[str], encoder: Encoder) -> None:
    lacking = [name for name in encoder.columns if name not in columns]
    if lacking:
        raise BadInput(
            "no such column", value=f"{', '.join(lacking)}; there are: {', '.join(columns) or 'none'}", source=path,
            remedy=encoder.columns_remedy,
        )  # fmt: skip


def _write_batch(batch: Batch, encoder: Encoder, sink: Sink, ledger: Ledger) -> None:
    rows = list(enumerate(batch.records, start=ledger.records))
    ledger.records += len(rows)
    for row, record in rows:
        if record is None:
            ledger.dropped["not readable as a record"].add(row)
    for row, sample in encoder.encode([(row, record) for row, record in rows if record is not None], ledger):
        reason = sink.add(sample.ids)
        if reason is not None:
            ledger.dropped[reason].add(row)
            continue
        ledger.written += 1
        ledger.tokens += sample.tokens
        ledger.trainable_tokens += sample.trainable
