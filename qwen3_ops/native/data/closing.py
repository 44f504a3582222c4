"""The end of a run, of one process or merged from parts: what the ledger says decides, and the ledger is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen3_ops.artifacts import write_atomically, writing
from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.recipe import Recipe
from qwen3_ops.verbs import Context, Outcome

LEDGER = "ledger.json"
_FEWEST = 100  # records that a share is taken of, unless the user names the share


def judge(ledger: Ledger, recipe: Recipe, *, about: Mapping[str, Any], ratio: float, ratio_is_given: bool, ctx: Context) -> None:
    """Whether the data set may be used. One that may not leaves its ledger on the screen, among the events and in ``ctx.side``.

    Raises:
        BadInput: a file lacks a column, or no record is left.
        QualityGate: more than ``ratio`` of the records are lost.
    """
    for file, columns in ledger.columns.items():
        if columns:
            require_columns(file, columns, recipe)
        for name in recipe.forgotten(columns):
            ledger.warn(f"the column {name} is not read: name it in --map-keys if it is meant")
    share = ledger.lost / max(ledger.records, 1)
    too_many = share > ratio and (ratio_is_given or ledger.records >= _FEWEST)
    if share > ratio and not too_many:
        ledger.warn(f"{share:.0%} of the records are lost; from {_FEWEST} records on --max-dropped-ratio refuses that")
    if ledger.written and not too_many:
        return
    tell(ledger, ctx)
    ctx.events.emit("ledger", **content(ledger, about))
    if ctx.side is not None:
        write_ledger(ctx.side, ledger, about)
    kept = f"The ledger is above{'' if ctx.side is None else f' and in {ctx.side / LEDGER}'}."
    if not ledger.written:
        raise BadInput("no record is left", value=f"0 of {ledger.records}", source="--input", remedy=kept)
    raise QualityGate(
        "too many records are lost", value=f"{ledger.lost} of {ledger.records} ({share:.1%}, allowed are {ratio:.1%})",
        source="--max-dropped-ratio", remedy=f"{kept} Mend the data or the flags it names, or allow more.",
    )  # fmt: skip


def publish(prefix: Path, ledger: Ledger, *, about: Mapping[str, Any], ctx: Context) -> Outcome:
    """The finished data set's ledger, as a file and for people."""
    write_ledger(prefix.parent, ledger, about)
    tell(ledger, ctx)
    return Outcome(kind="dataset", facts={**about, "output_prefix": prefix.name}, metrics=ledger.metrics)


def tell(ledger: Ledger, ctx: Context) -> None:
    ctx.events.log(ledger.table())
    for warning in ledger.warnings:
        ctx.events.warning(warning)


def require_columns(file: str, columns: list[str], recipe: Recipe) -> None:
    lacking = [name for name in recipe.columns if name not in columns]
    if lacking:
        raise BadInput(
            "no such column", value=f"{', '.join(lacking)}; there are: {', '.join(columns) or 'none'}", source=file,
            remedy=recipe.columns_remedy,
        )  # fmt: skip


def content(ledger: Ledger, about: Mapping[str, Any]) -> dict[str, Any]:
    return {**ledger.as_dict(), **about}


def write_ledger(folder: Path, ledger: Ledger, about: Mapping[str, Any]) -> None:
    with writing(folder):
        write_atomically(folder / LEDGER, json.dumps(content(ledger, about), ensure_ascii=False, indent=2) + "\n")
