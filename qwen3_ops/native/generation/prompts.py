"""From a question, or a conversation, to the tokens a model continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data import thinking
from qwen3_ops.native.data.conversation import Conversation, Message, render
from qwen3_ops.native.data.templates import TEMPLATES, Special, Token
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.generation.chat_template import load_chat_template
from qwen3_ops.native.generation.flags import FLAGS

DEFAULT_PROMPT = "how are you?"  # inference.py's own

Encode = Callable[[Conversation], list[int]]
"""The tokens up to where the answer begins."""


def read_prompts(path: Path | None) -> list[Conversation]:
    """The prompts of a text file, one a line, or of a .jsonl with a field ``prompt`` (text) or ``messages`` (role and content of each).

    Raises:
        BadInput: not readable, or no prompt in it.
    """
    if path is None:
        return [question(DEFAULT_PROMPT)]
    if path.suffix == ".json":
        raise BadInput("prompts are a text file, one a line, or .jsonl", value=path, source="--prompts")
    try:
        # Not splitlines: text may hold other line separators of Unicode.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput("the prompts can not be read", value=error, source=path) from error
    read = _from_json if path.suffix == ".jsonl" else question
    prompts = [read(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise BadInput("there is no prompt", source=path)
    return prompts


def question(text: str, source: str = "") -> Conversation:
    return Conversation(notes=[], messages=(Message(role="user", content=text.rstrip("\r")),))


def _from_json(line: str, source: str) -> Conversation:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BadInput("a line is not JSON", value=error, source=source) from error
    match record:
        case {"prompt": str(text)} if text:
            return Conversation(notes=[], messages=(Message(role="user", content=text),))
        case {"messages": [*messages]}:
            return _conversation(messages, source)
        case _:
            raise BadInput("a prompt needs a field prompt, a text that is not empty, or messages", value=line[:200], source=source)


def _conversation(messages: Sequence[Any], source: str) -> Conversation:
    """``system`` at most once and first, then user and assistant by turns, the user last."""
    if not all(isinstance(item, dict) and isinstance(item.get("content"), str) for item in messages):
        raise BadInput("every message needs a role and a text as content", value=json.dumps(messages)[:200], source=source)
    system = ""
    if messages and messages[0].get("role") == "system":
        system, messages = messages[0]["content"], messages[1:]
    roles = [item.get("role") for item in messages]
    if roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or len(roles) % 2 == 0:
        raise BadInput("messages are user and assistant by turns, the user first and last", value=roles, source=source)
    return Conversation(notes=[], messages=tuple(Message(role=item["role"], content=item["content"]) for item in messages), system=system)


def encoder(flags: FLAGS, tokenizer: Tokenizer) -> Encode:
    """By ``--hf-chat-template``, by ``--prompt-type``, or the raw text.

    Raises:
        BadInput: the tokenizer has no chat template.
    """
    if flags.hf_chat_template:
        return _in_chat_template(flags, tokenizer)
    if flags.prompt_type is not None:
        name, answer = flags.prompt_type, thinking.START if flags.enable_thinking == "true" else ""
        return lambda conversation: _in_template(conversation, tokenizer, prompt_type=name, answer=answer)
    return lambda conversation: _raw(conversation, tokenizer)


def _raw(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    if len(conversation.messages) > 1 or conversation.system:
        raise BadInput("a conversation needs a template", remedy="Give --prompt-type or --hf-chat-template.")
    return tokenizer.encode(conversation.messages[0].content)


def _in_chat_template(flags: FLAGS, tokenizer: Tokenizer) -> Encode:
    template = load_chat_template(flags.tokenizer_name_or_path)
    options = {} if flags.enable_thinking is None else {"enable_thinking": flags.enable_thinking == "true"}

    def encode(conversation: Conversation) -> list[int]:
        messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
        messages += [{"role": message.role, "content": message.content} for message in conversation.messages]
        return tokenizer.encode(template(messages, add_generation_prompt=True, **options))

    return encode


def _in_template(conversation: Conversation, tokenizer: Tokenizer, *, prompt_type: str, answer: str) -> list[int]:
    """``answer`` is what the answer's text begins with; it is not written."""
    whole = Conversation(notes=[], messages=(*conversation.messages, Message(role="assistant", content=answer)), system=conversation.system)
    *earlier, last = render(whole, TEMPLATES[prompt_type])
    slots = [slot for turn in earlier for slot in (*turn.source, *turn.target)] + [*last.source]
    tokens: list[int] = []
    for slot in slots:
        if slot is Special.BOS:
            tokens += [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        elif slot is Special.EOS:
            tokens.append(tokenizer.eos_token_id)
        elif isinstance(slot, Token):
            tokens.append(tokenizer.id_of(slot.text))
        else:
            tokens += tokenizer.encode(str(slot))
    return tokens
