"""From a question to the tokens a model continues."""

from __future__ import annotations

import json
from pathlib import Path

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.conversation import Conversation, Message, render
from qwen3_ops.native.data.templates import TEMPLATES, Special, Token
from qwen3_ops.native.data.tokenizer import Tokenizer

DEFAULT_PROMPT = "how are you?"  # inference.py's own


def read_prompts(path: Path | None) -> list[str]:
    """The prompts of a text file, one a line, or of a .jsonl with a field ``prompt``.

    Raises:
        BadInput: not readable, or no prompt in it.
    """
    if path is None:
        return [DEFAULT_PROMPT]
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts = [json.loads(line)["prompt"] for line in lines] if path.suffix == ".jsonl" else lines
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("the prompts can not be read", value=repr(error), source=path) from error
    if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
        raise BadInput("every prompt must be a text that is not empty, and there must be one", source=path)
    return prompts


def encode_prompt(question: str, tokenizer: Tokenizer, *, prompt_type: str | None) -> list[int]:
    """The raw text's tokens, or those of the template's first turn up to where the answer begins."""
    if prompt_type is None:
        return tokenizer.encode(question)
    conversation = Conversation(notes=[], messages=(Message(role="user", content=question), Message(role="assistant", content="")))
    (turn,) = render(conversation, TEMPLATES[prompt_type])
    tokens: list[int] = []
    for slot in turn.source:
        if slot is Special.BOS:
            tokens += [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        elif slot is Special.EOS:
            tokens.append(tokenizer.eos_token_id)
        elif isinstance(slot, Token):
            tokens.append(tokenizer.id_of(slot.text))
        else:
            tokens += tokenizer.encode(str(slot))
    return tokens
