"""Records of the two instruction formats as conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qwen3_ops.native.data.conversation import Conversation, Message, Role, Unusable
from qwen3_ops.native.data.mapping import Columns, KeyMap, Tags

Record = Mapping[str, Any]
Handler = Callable[[Record], Conversation]


def instruction_handler(handler_name: str, keys: KeyMap) -> Handler:
    if handler_name == "AlpacaStyleInstructionHandler":
        return lambda record: from_alpaca(record, keys.columns)
    return lambda record: from_sharegpt(record, keys.columns, keys.tags)


def from_alpaca(record: Record, columns: Columns) -> Conversation:
    """One question and answer, with earlier turns from the history column.

    Raises:
        Unusable: no answer, or a column is not of the type it must be.
    """
    notes: list[str] = []
    messages = _history(_value(record, columns["history"]), notes)
    parts = [_text(part, "the instruction or its input") for name in ("prompt", "query") if (part := _value(record, columns[name]))]
    answers = _answers(_value(record, columns["response"]))
    system = _text(_value(record, columns["system"]) or "", "the system column")
    if len(answers) > 1:
        # The original writes an empty turn in place of such a record; its bytes are kept, its silence is not.
        notes.append("more than one answer in a list: written as one empty turn")
        return Conversation(_turn("", ""), notes, system)
    return Conversation((*messages, *_turn("\n".join(parts), answers[0])), notes, system)


def _answers(response: Any) -> list[str]:
    if isinstance(response, str):
        return [response]
    answers = response if isinstance(response, list) else [response]
    if not answers or answers == [None]:
        raise Unusable("no answer")
    return [_text(answer, "the answer") for answer in answers]


def _history(history: Any, notes: list[str]) -> tuple[Message, ...]:
    if not history:
        return ()
    if not isinstance(history, list):
        notes.append("history is not a list: left out")
        return ()
    messages: tuple[Message, ...] = ()
    for pair in history:
        if isinstance(pair, dict):
            notes.append("history holds objects: their keys are written, not their values")
        if not isinstance(pair, list | dict) or len(pair) != 2:
            raise Unusable("history is not made of pairs")
        question, answer = pair
        messages += _turn(_text(question, "the history"), _text(answer, "the history"))
    return messages


def _turn(question: str, answer: str) -> tuple[Message, Message]:
    return Message("user", question), Message("assistant", answer)


def from_sharegpt(record: Record, columns: Columns, tags: Tags) -> Conversation:
    """A list of messages, each with a role and a content.

    Raises:
        Unusable: no messages, roles out of turn, a question without an answer, or a wrong type.
    """
    messages = _value(record, columns["messages"])
    if not isinstance(messages, list) or not messages:
        raise Unusable("no messages")
    if not all(isinstance(message, dict) for message in messages):
        raise Unusable("a message is not an object")
    system: Any = _value(record, columns["system"])
    if tags.system_tag is not None and messages[0].get(tags.role_tag) == tags.system_tag:
        system, messages = messages[0].get(tags.content_tag), messages[1:]
    roles = _roles(tags)
    places = (tags.user_tag, tags.observation_tag), (tags.assistant_tag, tags.function_tag)
    notes: list[str] = []
    kept: list[Message] = []
    for index, message in enumerate(messages):
        name = message.get(tags.role_tag)
        role = roles.get(name) if name in places[index % 2] else None
        if role is None:
            raise Unusable("roles out of turn")
        if name is None:
            notes.append(f"a message without a role: taken as {role}")
        content = message.get(tags.content_tag)
        if content is None:
            notes.append("a message without content: left out")
        else:
            kept.append(Message(role=role, content=_text(content, "a message's content")))
    if not kept or len(kept) % 2:
        raise Unusable("a question without an answer")
    return Conversation(tuple(kept), notes, _text(system or "", "the system text"), _value(record, columns["tools"]))


def _roles(tags: Tags) -> Mapping[str | None, Role | None]:
    """Roles by their name in the data. A name that two have is the later one's, and so is having none: the original's rule."""
    return {
        tags.user_tag: "user", tags.assistant_tag: "assistant", tags.observation_tag: "observation", tags.function_tag: "function",
        tags.system_tag: None,
    }  # fmt: skip


def _value(record: Record, column: str | None) -> Any:
    return None if column is None else record.get(column)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"{what} is not text")
    return value
