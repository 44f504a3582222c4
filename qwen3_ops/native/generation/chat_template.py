"""The chat template that comes with a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from qwen3_ops.errors import BadInput


class ChatTemplate(Protocol):
    def __call__(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, **options: bool) -> str: ...


def load_chat_template(folder: Path) -> ChatTemplate:
    """Writes messages (``role`` and ``content``) as text.

    Raises:
        BadInput: the tokenizer has none.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise BadInput("the tokenizer has no chat template", value=folder, source="--tokenizer-name-or-path")

    def write(messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, **options: bool) -> str:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt, **options)
        return text

    return write
