"""Rendering: a script's blanks filled, its dialect, its faults mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from qwen3_ops.config import Engine
from qwen3_ops.stages.blanks import blanks
from qwen3_ops.stages.dialects import in_dialect
from qwen3_ops.stages.script import Habit, Script, Site, fill, mended


class Mend(BaseModel):
    """One difference from the runbook's command, on purpose.

    Attributes:
        flag: or environment variable.
        why: what is wrong with the runbook's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flag: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One script's flags, without program and launcher."""

    script: Script
    argv: list[str]
    mends: tuple[Mend, ...] = ()


def render(script: Script, site: Site, *, engine: Engine) -> Rendered:
    """The flags of ``script`` for a run.

    The native engine speaks one dialect, that of 2.1.0; MindSpeed-LLM that of its version.
    """
    run = site.run
    script = script if engine == "native" else in_dialect(script, run.mindspeed_version)
    known = blanks(site)
    argv = fill(script.flags, known)
    mends: list[Mend] = []
    if run.fidelity == "mended":
        argv, mends = _mended(script, site, argv)
        mends = [*_told([habit for habit in script.habits if getattr(run, habit.field) != habit.value]), *mends]
    if engine == "native":
        argv += fill(script.native, known)
    return Rendered(script=script, argv=argv, mends=tuple(mends))


def faults_that_stay(script: Script, site: Site) -> list[Mend]:
    """What mended fidelity would change in ``script``, and the habits of the script that the run shares."""
    script = in_dialect(script, site.run.mindspeed_version)
    _, mends = _mended(script, site, fill(script.flags, blanks(site)))
    return [*_told([habit for habit in script.habits if getattr(site.run, habit.field) == habit.value]), *mends]


def _mended(script: Script, site: Site, argv: list[str]) -> tuple[list[str], list[Mend]]:
    mends = []
    for fault in script.faults:
        better = mended(argv, fault, site) if fault.applies(site) else argv
        if better != argv or fault.told:
            mends.append(Mend(flag=fault.flag, why=fault.why))
        argv = better
    return argv, mends


def _told(habits: Sequence[Habit]) -> list[Mend]:
    return [Mend(flag=habit.flag, why=habit.why) for habit in habits]
