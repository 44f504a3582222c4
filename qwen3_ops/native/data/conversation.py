"""What a record is once its columns are understood, and how a template writes it down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from qwen3_ops.native.data import thinking
from qwen3_ops.native.data.templates import CONTENT, INDEX, Slots, Template
from qwen3_ops.native.data.tools import describe_tools, function_call

Role = Literal["user", "assistant", "observation", "function"]


class Unusable(Exception):
    """A record that can not become a sample; the text is the ledger's reason."""


def check_text(texts: Iterable[Any]) -> None:
    """Raises Unusable unless all are strings that UTF-8 can hold: JSON may escape half a character."""
    for text in texts:
        if not isinstance(text, str):
            raise Unusable("a column is not text")
        if not is_unicode(text):
            raise Unusable("text is not valid Unicode")


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Message(NamedTuple):  # millions are made: three times faster to make than a frozen dataclass
    role: Role
    content: str


class Conversation(NamedTuple):
    """Prompts at even places, answers at odd ones.

    Attributes:
        notes: what was read in a way its author may not expect; each goes into the ledger. Rendering adds to them.
        tools: the tools column as it came, usually JSON text.
    """

    messages: tuple[Message, ...]
    notes: list[str]
    system: str = ""
    tools: object = None


class Turn(NamedTuple):
    """Elements of one prompt and its answer; each string is tokenized by itself."""

    source: Slots
    target: Slots


def render(conversation: Conversation, template: Template) -> list[Turn]:
    """The turns as elements: texts, and tokens by name.

    Raises:
        Unusable: a function call can not be written.
    """
    opening = _system_text(conversation, template)
    messages, notes = conversation.messages, conversation.notes
    turns = []
    for index in range(0, len(messages), 2):
        prompt, answer = messages[index : index + 2]
        source: Slots = template.prefix if index == 0 else template.separator
        content = prompt.content
        if index == 0 and opening is not None:
            system = _fill(template.system, opening)
            if not template.system_in_user:
                source += system
            elif prompt.role == "user":  # in front of a tool's result the original loses it
                content = "".join(slot for slot in system if isinstance(slot, str)) + content
        source += _message(template, prompt.role, content, index, notes)
        text = answer.content
        if template.thought:
            last = index + 2 == len(messages)
            text = thinking.written(text, last=last) if answer.role == "assistant" else text
            if last and not text.startswith(thinking.START):
                source += (template.thought,)
        turns.append(Turn(source, _message(template, answer.role, text, index + 1, notes)))
    return turns


def _system_text(conversation: Conversation, template: Template) -> str | None:
    system = conversation.system or template.default_system
    if not conversation.tools:
        return system or None
    tools = describe_tools(conversation.tools, template.tools)
    if tools is None:
        conversation.notes.append("tools left out: not the JSON text of a list of functions, or the prompt type writes none")
        return system if template.tools != "qwen3" else system or None  # the original writes an empty system part
    return f"{system}\n\n{tools}" if template.tools == "qwen3" and system and tools else system + tools


def _message(template: Template, role: Role, content: str, index: int, notes: list[str]) -> Slots:
    slots = template.slots[role]
    if role == "function":
        call = function_call(content)
        if call is None and template.tools == "qwen3":
            raise Unusable("a function call without name and arguments")
        if call is None:
            notes.append("function call without name and arguments: written empty")
        name, arguments = call or ("", "")
        return tuple(
            slot.replace("{{name}}", name).replace("{{arguments}}", arguments) if isinstance(slot, str) else slot for slot in slots
        )
    counted = role == "user" and not template.system_in_user
    return _fill(slots, content, turn=index // 2 if counted else None)


def _fill(slots: Slots, content: str, *, turn: int | None = None) -> Slots:
    """Each text with its first ``{{content}}`` filled in, then its first ``{{idx}}`` (the user's own too)."""
    filled = [slot.replace(CONTENT, content, 1) if isinstance(slot, str) else slot for slot in slots]
    if turn is not None:
        filled = [slot.replace(INDEX, str(turn), 1) if isinstance(slot, str) and INDEX in slot else slot for slot in filled]
    return tuple(filled)
