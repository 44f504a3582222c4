"""Our verbs accept the full argv of the runbook's own commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3_ops.verbs import VERBS

COMMANDS = sorted((Path(__file__).parent / "data" / "commands").glob("*.json"))
SCRIPTS = {verb.script: verb for verb in VERBS.values()} | {"pretrain_gpt.py": VERBS["train"]}


def split(argv):
    """(script, flags) of ``python [./]script.py …`` or ``torchrun … script.py …``; None for another program."""
    at = next((at for at, token in enumerate(argv) if token.endswith(".py")), None)
    return None if at is None else (Path(argv[at]).name, argv[at + 1 :])


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_the_runbooks_argv_is_accepted(path):
    command = json.loads(path.read_text())
    found = split(command["argv"])
    if found is None:
        assert command["argv"][0] == "tensorboard"
        return
    script, argv = found
    SCRIPTS[script].flags().parse(argv)
    SCRIPTS[script].flags().parse([*argv, *command.get("optional_flags", [])])


def test_every_command_was_looked_at():
    assert len(COMMANDS) == 28


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_an_unknown_flag_is_refused(verb):
    with pytest.raises(Exception, match="--no-such-flag: unknown flag"):
        verb.flags().parse(["--no-such-flag", "1"])
