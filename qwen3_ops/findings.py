"""Findings: one line of the plan each, and the refusal that holds them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from qwen3_ops.errors import BadInput

if TYPE_CHECKING:
    from qwen3_ops.forecast import Forecast

Severity = Literal["refuse", "warn"]


class Finding(BaseModel):
    """What a rule found.

    Attributes:
        rule: the rule's name, or what is required, in short.
        fields: names of the RunConfig fields involved.
        values: the values that break the rule, as text.
        consequence: what would happen.
        remedy: what to do about it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    fields: tuple[str, ...]
    values: str
    consequence: str
    remedy: str
    severity: Severity = "refuse"

    def __str__(self) -> str:
        lines = (
            f"{', '.join(self.fields)}: {self.rule}",
            f"found: {self.values}",
            f"consequence: {self.consequence}",
            f"remedy: {self.remedy}",
        )
        return "\n    ".join(lines)


class PlanRefused(BadInput):
    """The run can not work.

    Attributes:
        findings: every reason at once, warnings included.
        forecast: what the run would take, where that can be told.
    """

    def __init__(self, findings: Sequence[Finding], *, forecast: Forecast | None = None, who: str = "The plan") -> None:
        self.findings = tuple(findings)
        self.forecast = forecast
        refusals = [finding for finding in self.findings if finding.severity == "refuse"]
        warnings = [finding for finding in self.findings if finding.severity == "warn"]
        lines = [f"{who} refuses this run, {len(refusals)} finding{'s' if len(refusals) != 1 else ''}:"]
        lines += [f"[{number}] {finding}" for number, finding in enumerate(refusals, 1)]
        lines += [f"[warning] {finding}" for finding in warnings]
        super().__init__("\n".join(lines))

    def as_json(self) -> str:
        """``{"refused": true, "findings": [...], "forecast": {...} or null}``."""
        forecast = None if self.forecast is None else self.forecast.model_dump(mode="json")
        return json.dumps(
            {"refused": True, "findings": [finding.model_dump(mode="json") for finding in self.findings], "forecast": forecast}, indent=2
        )
