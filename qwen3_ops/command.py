"""A program to start: what ``render --json`` prints and the mindspeed engine runs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Command(BaseModel):
    """One process of one node.

    Attributes:
        env: variables set besides the login environment of the container (conda, CANN).
        cwd: folder of MindSpeed-LLM, which its scripts must be started in.
        argv: program and arguments; no shell reads them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: dict[str, str]
    cwd: str
    argv: list[str]
