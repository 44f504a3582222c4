"""Numbers on a command line: written as their author wrote them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import ValidatorFunctionWrapHandler, WrapValidator


class Written(float):
    """A number that remembers its text, so that ``1e-1`` is rendered as the runbook has it."""

    text: str

    def __new__(cls, text: str) -> Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


def _keep_text(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    number = validate(value)
    if isinstance(value, str):
        return Written(value.strip())
    return value if isinstance(value, Written) else number


Real = Annotated[float, WrapValidator(_keep_text)]
"""A pydantic field's type: a float that keeps its text when it comes as text."""


def show(number: float) -> str:
    """Shortest text that reads back as ``number``: ``1.25e-6``, ``0.01``."""
    if isinstance(number, Written):
        return number.text
    return re.sub(r"e([+-])0+(\d)", r"e\1\2", repr(number))


def canonical(token: str) -> str:
    """Equal for two texts of the same number, else the token itself."""
    try:
        return repr(float(token))
    except ValueError:
        return token
