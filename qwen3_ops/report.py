"""Tables for people: the plan, the fields of a run, the flags of a verb."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table

from qwen3_ops.command import Command
from qwen3_ops.config import form_fields
from qwen3_ops.glossary import GLOSSARY
from qwen3_ops.plan import Plan
from qwen3_ops.recipes import DEFAULT_RECIPE, RECIPES
from qwen3_ops.runbook import RunbookCommand
from qwen3_ops.stages.rendering import Mend
from qwen3_ops.verbs import Verb


def print_plan(plan: Plan) -> None:
    console = Console()
    config, model = plan.config, plan.model
    console.print(
        f"[bold]{config.recipe}[/bold]: {model.num_parameters / 1e9:.3g} B parameters, {model.num_layers} layers, "
        f"TP{config.tensor_model_parallel_size} PP{config.pipeline_model_parallel_size} "
        f"on {config.nproc_per_node * config.nnodes} devices, {config.train_iters} iterations of {config.global_batch_size}",
        highlight=False,
    )
    table = Table("section", "task", "stage", "command", "artifact")
    for stage in plan.stages:
        table.add_row(stage.section, stage.name, stage.title, stage.verb, f"{'reuse' if stage.reused else 'make'} {stage.key}")
    console.print(table)
    for finding in plan.findings:
        console.print(f"warning: {finding}", style="yellow", highlight=False, markup=False)


def print_runbook(commands: Mapping[str, RunbookCommand]) -> None:
    table = Table("section", Column("name", no_wrap=True), "program", "node")
    for name, command in commands.items():
        table.add_row(command.section, name, command.script.program, str(command.node) if "multinode" in name else "")
    Console().print(table)


def print_command(command: Command, mends: Sequence[Mend]) -> None:
    """A command as the runbook writes it, for a shell; what it mends stands above as comments."""
    lines = [f"# {mend.flag}: {mend.why}" for mend in mends]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in command.env.items()]
    lines.append(f"cd {shlex.quote(command.cwd)}")
    lines.append(" \\\n    ".join(_flag_by_flag(command.argv)))
    print(*lines, sep="\n")


def _flag_by_flag(argv: Sequence[str]) -> list[str]:
    lines: list[list[str]] = [[]]
    for token in argv:
        if token.startswith("--") or token.endswith(".py"):
            lines.append([])
        lines[-1].append(token)
    return [shlex.join(line) for line in lines if line]


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
