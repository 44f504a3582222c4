"""The runbook's command-line flags as typed models.

A verb declares its flags as a pydantic model: the field ``load_dir: Path`` is the flag
``--load-dir``. Known flags without an effect on an engine and known flags that an engine
can not honour are listed beside the fields, so that nothing is ever silently ignored.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen3_ops.errors import BadInput

T = TypeVar("T", bound="Flags")


class Flags(BaseModel):
    """Base of every verb's flags.

    A ``bool`` field takes no value, a ``tuple`` field one or more, any other exactly one.

    Attributes:
        INERT: known flags without an effect here -> how many values they take (-1: one or more).
        REFUSED: known flags that this engine can not honour -> why, and what to do instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    INERT: ClassVar[Mapping[str, int]] = {}
    REFUSED: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def parse(cls: type[T], argv: Sequence[str]) -> tuple[T, list[str]]:
        """Parse ``argv``.

        Returns:
            The flags and the names of those that were given but have no effect here.

        Raises:
            BadInput: an unknown or unsupported flag, a value that is missing, superfluous,
                contradictory or of the wrong type. All findings are in one message.
        """
        problems: list[str] = []
        values: dict[str, Any] = {}
        inert: list[str] = []
        for flag, given in _group(argv, problems):
            field = flag[2:].replace("-", "_")
            if flag in cls.REFUSED:
                problems.append(f"{flag}: not supported by this engine: {cls.REFUSED[flag]}")
            elif field in cls.model_fields:
                cls._collect(field, flag, given, values, problems)
            elif flag in cls.INERT:
                _check_count(flag, given, cls.INERT[flag], problems)
                if flag not in inert:
                    inert.append(flag)
            else:
                problems.append(f"{flag}: unknown flag{cls._suggest(flag)}")
        parsed = cls._validate(values, problems)
        return parsed, inert

    @classmethod
    def _collect(cls, field: str, flag: str, given: list[str], values: dict[str, Any], problems: list[str]) -> None:
        kind = _arity(cls.model_fields[field].annotation)
        if not _check_count(flag, given, kind, problems):
            return
        value: Any = True if kind == 0 else tuple(given) if kind == -1 else given[0]
        if field in values and values[field] != value:
            problems.append(f"{flag}: given twice with different values: {values[field]!r} and {value!r}")
        values[field] = value

    @classmethod
    def _validate(cls: type[T], values: dict[str, Any], problems: list[str]) -> T:
        try:
            parsed = cls.model_validate(values)
        except ValidationError as error:
            for item in error.errors():
                message = item["msg"].removeprefix("Value error, ")
                if not item["loc"]:  # of the flags as a whole; the message names them
                    problems.append(message)
                    continue
                name = "--" + str(item["loc"][0]).replace("_", "-")
                problems.append(f"{name}: required" if item["type"] == "missing" else f"{name}: {message} (given: {item['input']!r})")
        if problems:
            raise BadInput("the command line can not be accepted:\n  " + "\n  ".join(problems), remedy="")
        return parsed

    @classmethod
    def known(cls) -> list[str]:
        return [*("--" + name.replace("_", "-") for name in cls.model_fields), *cls.INERT, *cls.REFUSED]

    @classmethod
    def _suggest(cls, flag: str) -> str:
        near = difflib.get_close_matches(flag, cls.known(), n=1, cutoff=0.75)
        return f" (did you mean {near[0]}?)" if near else ""


def _group(argv: Sequence[str], problems: list[str]) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for token in argv:
        if token.startswith("--") and len(token) > 2:
            flag, equals, value = token.partition("=")
            groups.append((flag, [value] if equals else []))
        elif groups:
            groups[-1][1].append(token)
        else:
            problems.append(f"{token!r}: a value without a flag")
    return groups


def _arity(annotation: Any) -> int:
    """0 for a switch, -1 for one or more values, 1 for one value."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return _arity(inner[0])
    if annotation is bool:
        return 0
    return -1 if annotation is tuple or origin is tuple else 1


def _check_count(flag: str, given: list[str], kind: int, problems: list[str]) -> bool:
    wanted = {0: "no value", 1: "exactly one value", -1: "at least one value"}.get(kind, f"{kind} values")
    right = len(given) == kind if kind >= 0 else len(given) > 0
    if not right:
        problems.append(f"{flag}: takes {wanted}, given {len(given)}: {' '.join(given) or 'none'}")
    return right


def get_flag(argv: Sequence[str], flag: str) -> str | None:
    """The single value of ``flag`` in a rendered ``argv``, or None."""
    return argv[list(argv).index(flag) + 1] if flag in argv else None


def replace_flag(argv: Sequence[str], flag: str, value: str) -> list[str]:
    """``argv`` with the single value of ``flag`` exchanged."""
    result = list(argv)
    result[result.index(flag) + 1] = value
    return result
