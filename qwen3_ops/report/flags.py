"""The fields of a run and the flags of a verb, as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from qwen3_ops.config import form_fields
from qwen3_ops.glossary import GLOSSARY
from qwen3_ops.recipes import DEFAULT_RECIPE, RECIPES
from qwen3_ops.verbs import Verb


def print_fields() -> None:
    recipes = {name: make() for name, make in RECIPES.items()}
    table = Table(Column("field", no_wrap=True), "type", "description")
    for field in form_fields(recipes=recipes, default_recipe=DEFAULT_RECIPE, shown=(DEFAULT_RECIPE, "tiny")):
        kinds = field.schema["enum"] if "enum" in field.schema else field.schema["type"]
        shown = " | ".join(str(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind not in (None, "null"))
        table.add_row(field.name, shown, field.description)
    Console().print(table)


def print_flags(verb: Verb) -> None:
    """What ``--help`` shows for a verb: honoured, accepted without effect, refused."""
    flags = verb.flags()
    console = Console(highlight=False)
    console.print(f"qwen3-ops {verb.name}: {verb.summary}\nThe flags are those of MindSpeed-LLM's {verb.script}.\n", markup=False)
    table = Table(Column("flag", no_wrap=True), "default", "meaning")
    for name, field in flags.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        table.add_row("--" + name.replace("_", "-"), default, field.description or GLOSSARY.get(name, ""))
    console.print(table)
    if verb.output_flag is None:
        console.print("--output-dir DIR  keep the results there as files (ours)", markup=False)
    if flags.INERT:
        console.print(f"\nAccepted, without effect on this engine: {' '.join(sorted(flags.INERT))}", markup=False)
    if flags.REFUSED:
        console.print("\nRefused by this engine:", markup=False)
        for name, why in sorted(flags.REFUSED.items()):
            console.print(f"  {name}: {why}", markup=False)


def _shown(default: object) -> str:
    if default in (None, False, ()):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
