"""``generate --task chat``: a conversation at a terminal, and only there."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.conversation import Conversation, Message

_HELP = "Ask; an empty line or Ctrl-D ends, 'clear' forgets what was said."


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
    """Ask and answer until an empty line or the end of input; returns the number of answers.

    Args:
        history_turns: earlier turns that a question comes with.
        with_history: False where there is no template to write them with.
    """
    print(_HELP, flush=True)
    turns: list[Message] = []
    answers = 0
    while text := _asked(ask):
        if text == "clear":
            turns = []
            continue
        kept = turns[len(turns) - 2 * history_turns :] if with_history and 2 * history_turns < len(turns) else turns * with_history
        said = answer(Conversation(notes=[], messages=(*kept, Message(role="user", content=text))))
        print(f"\nMindSpeed-LLM:\n{said}\n", flush=True)
        turns += [Message(role="user", content=text), Message(role="assistant", content=said)]
        answers += 1
    return answers


def _asked(ask: Callable[[str], str]) -> str:
    try:
        return ask("You: ").strip()
    except EOFError:
        return ""
