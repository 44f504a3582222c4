"""Reasoning in answers, as Qwen3's chat template treats it."""

from __future__ import annotations

START, END = "<think>", "</think>"


def split_reasoning(answer: str) -> tuple[str, str]:
    """``<think>reasoning</think>text`` -> reasoning (empty where there is none), text."""
    if END not in answer:
        return "", answer
    reasoning = answer.partition(END)[0].rpartition(START)[2].strip("\n")
    return reasoning, answer.rpartition(END)[2].lstrip("\n")


def written(answer: str, *, last: bool) -> str:
    """The answer as it is trained: only a conversation's last one keeps its reasoning."""
    reasoning, text = split_reasoning(answer)
    if not last:
        return text
    text = text.lstrip("\n")
    return f"{START}\n{reasoning}\n{END}\n\n{text}" if reasoning else text
