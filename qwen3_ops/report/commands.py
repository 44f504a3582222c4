"""The runbook's commands, for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table

from qwen3_ops.command import Command
from qwen3_ops.runbook import RunbookCommand
from qwen3_ops.stages.rendering import Mend


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
