"""``--map-keys``: which columns and role names of the data mean what. Light: flags are checked with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Columns = Mapping[str, str | None]
"""Meaning -> column; None = there is none."""

_PREFERENCE = ("chosen", "rejected", "kto_tag")  # known to the original, without effect on instruction data
_ALPACA: Columns = {"prompt": "instruction", "query": "input", "response": "output", "history": None, "system": None}
_SHAREGPT: Columns = {"messages": "conversations", "system": None, "tools": None}


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Names inside one message; None = no message is of that kind."""

    role_tag: str | None = "from"
    content_tag: str | None = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    observation_tag: str | None = "observation"
    function_tag: str | None = "function_call"
    system_tag: str | None = "system"


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    columns: Columns
    tags: Tags = field(default_factory=Tags)

    @property
    def used_columns(self) -> list[str]:
        return [column for column in self.columns.values() if column]


def key_map(handler_name: str, text: str | None) -> KeyMap:
    """Columns and tags for a handler of instruction data.

    Raises:
        ValueError: ``text`` is not a JSON object, or names something the handler does not know.
    """
    given = _parse(text)
    if handler_name == "AlpacaStyleInstructionHandler":
        return KeyMap(columns=_columns(_ALPACA, given))
    tags = given.pop("tags", None)
    return KeyMap(columns=_columns(_SHAREGPT, given), tags=Tags() if not tags else _tags(tags))


def _parse(text: str | None) -> dict[str, Any]:
    try:
        given = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError("not a JSON object")
    return given


def _columns(defaults: Columns, given: Mapping[str, Any]) -> Columns:
    _check(given, [*defaults, *_PREFERENCE])
    return {meaning: given.get(meaning, default) or None for meaning, default in defaults.items()}


def _tags(given: Any) -> Tags:
    """As soon as tags are given, every tag that is not named is none: the original's rule."""
    names = list(Tags.__dataclass_fields__)
    if not isinstance(given, dict):
        raise ValueError("tags: not a JSON object")
    _check(given, names)
    tags = Tags(**{name: given.get(name) or None for name in names})
    for name in ("role_tag", "content_tag", "user_tag", "assistant_tag"):
        if getattr(tags, name) is None:
            raise ValueError(f"tags: {name} is missing; once tags are given, all that are needed must be named")
    return tags


def _check(given: Mapping[str, Any], known: list[str]) -> None:
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"unknown key {name!r}; known: {', '.join(known)}")
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: not a name: {value!r}")
