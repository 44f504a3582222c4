"""``merge-data``: parts of a data set in, the same bytes as of one run out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen3_ops.artifacts import require_artifact, writing
from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.closing import judge, publish
from qwen3_ops.native.data.indexed import IndexedDataset
from qwen3_ops.native.data.indexed_format import output_prefix
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.merge.flags import MergeFlags
from qwen3_ops.native.data.parts import PART, Part, read_part
from qwen3_ops.native.data.writer import IndexedDatasetWriter
from qwen3_ops.verbs import Context, Outcome


def run(flags: MergeFlags, ctx: Context) -> Outcome:
    """Write ``<prefix>_*_document.{bin,idx}`` and ``ledger.json``. Packing happens here: it needs all records' lengths.

    Raises:
        BadInput: parts are missing, unfinished, given twice, or not of one data set; or no record is left.
        QualityGate: more records are lost than ``--max-dropped-ratio`` allows.
        Infrastructure: the disk is full.
    """
    prefix = flags.output_prefix
    parts = _parts(flags.input)
    _, first = parts[0]
    ledger = _joined([part.ledger for _, part in parts])
    judge(
        ledger, first.recipe, about=first.about, ratio=flags.max_dropped_ratio,
        ratio_is_given="max_dropped_ratio" in flags.model_fields_set, ctx=ctx,
    )  # fmt: skip
    with writing(prefix):
        prefix.parent.mkdir(parents=True, exist_ok=True)
    prefixes = [folder / part.prefix for folder, part in parts]
    packing = first.recipe.packing
    if packing is not None:
        ledger.sequences = packing.write(prefix, prefixes)
    else:
        with ctx.events.progress("merge-data", total=len(first.recipe.outputs), unit="files") as progress:
            for name in first.recipe.outputs:
                _join([output_prefix(part, name) for part in prefixes], output_prefix(prefix, name))
                progress.advance()
    return publish(prefix, ledger, about=first.about, ctx=ctx)


def _join(parts: Sequence[Path], whole: Path) -> None:
    """One data set of all sequences and documents of ``parts``, in their order; its tokens are copied as they are."""
    with IndexedDatasetWriter(whole) as writer:
        for part in parts:
            writer.add_dataset(IndexedDataset(part))


def _parts(given: Sequence[Path]) -> list[tuple[Path, Part]]:
    """All parts of one data set, in their order."""
    found = sorted(((folder, _part(folder)) for folder in _folders(given)), key=lambda item: item[1].shard)
    (_, first), count = found[0], found[0][1].shard[1]
    for folder, part in found:
        for field in ("files", "recipe"):
            if getattr(part, field) != getattr(first, field):
                raise BadInput(f"the parts are not of one data set: they differ in their {field}", value=folder, source="--input")
    shards = [part.shard for _, part in found]
    if shards != [(index, count) for index in range(count)]:
        given_shards = " ".join(f"{index}/{of}" for index, of in shards)
        raise BadInput(
            "not every part is there exactly once",
            value=given_shards,
            source="--input",
            remedy=f"There must be 0/{count} to {count - 1}/{count}.",
        )
    return found


def _folders(given: Sequence[Path]) -> list[Path]:
    if len(given) == 1 and given[0].is_dir() and not (given[0] / PART).exists():
        return sorted(path.parent for path in given[0].glob(f"*/{PART}") if not path.parent.name.startswith(".")) or list(given)
    return list(given)


def _part(folder: Path) -> Part:
    require_artifact(folder, ("dataset_part",))
    return read_part(folder)


def _joined(ledgers: Sequence[Ledger]) -> Ledger:
    whole = Ledger()
    for ledger in ledgers:
        whole.join(ledger, first_row=whole.records)
    return whole
