"""The conversation at a terminal: what is asked, what is remembered, how it ends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from qwen3_ops.native.data.conversation import Conversation
from qwen3_ops.native.generation.chat import chat


def typed(*lines: str) -> Callable[[str], str]:
    waiting = iter(lines)

    def ask(prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    return ask


@pytest.mark.parametrize(("turns", "kept"), [(0, [1, 1, 1, 1]), (1, [1, 3, 3, 3]), (3, [1, 3, 5, 7])])
def test_earlier_turns_come_along(turns: int, kept: list[int]) -> None:
    seen: list[list[str]] = []

    def answer(conversation: Conversation) -> str:
        seen.append([message.content for message in conversation.messages])
        return f"to {conversation.messages[-1].content}"

    assert chat(answer, history_turns=turns, with_history=True, ask=typed("a", "b", "c", "d")) == 4
    assert [len(item) for item in seen] == kept
    assert seen[-1][-1] == "d"
    if turns:
        assert seen[1] == ["a", "to a", "b"]
        assert seen[-1][-3:] == ["c", "to c", "d"]


def test_clear_and_no_template_forget() -> None:
    lengths: list[int] = []

    def answer(conversation: Conversation) -> str:
        lengths.append(len(conversation.messages))
        return "x"

    chat(answer, history_turns=3, with_history=True, ask=typed("a", "clear", "b", "new", "c"))
    chat(answer, history_turns=3, with_history=False, ask=typed("a", "b"))
    assert lengths == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("word", ["q", "quit", "exit", " exit "])
def test_the_real_tools_words_end_it(word: str) -> None:
    """An empty line is nothing asked."""
    asked: list[str] = []

    def answer(conversation: Conversation) -> str:
        asked.append(conversation.messages[-1].content)
        return "x"

    assert chat(answer, history_turns=3, with_history=True, ask=typed("a", "", "  ", "b\udcff", word, "never asked")) == 2
    assert asked == ["a", "b"]


def test_without_a_terminal_it_ends_at_once(inference_argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen3_ops", "generate", *inference_argv, "--task", "greedy", "chat"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard input is not a terminal" in done.stderr
    assert "=====" not in done.stdout


def test_at_a_terminal(inference_argv: list[str]) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"What is 2 + 3?\n\nquit\n")
    done = subprocess.run(
        [sys.executable, "-m", "qwen3_ops", "generate", *inference_argv, "--task", "chat", "--prompt-type", "qwen", "--max-new-tokens", "4"],
        stdin=theirs, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("MindSpeed-LLM:") == 1
