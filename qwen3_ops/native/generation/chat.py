"""``generate --task chat``: a conversation at a terminal, and only there."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.conversation import Conversation, Message

_END, _CLEAR = ("q", "quit", "exit"), ("clear", "new")  # the words of the real tool
_HELP = "Ask; Ctrl-D or one of q, quit, exit ends, clear or new forgets what was said."


def require_terminal() -> None:
    """Raises BadInput where nobody can answer: a job must never wait for input."""
    if not sys.stdin.isatty():
        raise BadInput(
            "--task chat asks for questions, and standard input is not a terminal",
            value="chat",
            source="--task",
            remedy="Give --prompts FILE with another task, or run it at a terminal (docker run -it).",
        )


def chat(answer: Callable[[Conversation], str], *, history_turns: int, with_history: bool, ask: Callable[[str], str] = input) -> int:
    """Ask and answer until a word of ``_END`` or the end of input; returns the number of answers.

    Args:
        history_turns: earlier turns that a question comes with.
        with_history: False where there is no template to write them with.
    """
    print(_HELP, flush=True)
    turns: list[Message] = []
    answers = 0
    while (text := _asked(ask)) is not None and text not in _END:
        if not text:
            continue
        if text in _CLEAR:
            turns = []
            continue
        kept = turns[len(turns) - 2 * history_turns :] if with_history and 2 * history_turns < len(turns) else turns * with_history
        said = answer(Conversation(notes=[], messages=(*kept, Message(role="user", content=text))))
        print(f"\nMindSpeed-LLM:\n{said}\n", flush=True)
        turns += [Message(role="user", content=text), Message(role="assistant", content=said)]
        answers += 1
    return answers


def _asked(ask: Callable[[str], str]) -> str | None:
    """A line, or None at the end of input."""
    try:
        # A terminal that is not UTF-8 gives halves of characters, which no tokenizer takes.
        return ask("You: ").strip().encode("utf-8", errors="ignore").decode("utf-8")
    except EOFError:
        return None
