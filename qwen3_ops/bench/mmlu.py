"""``bench mmlu``: questions a second, the examples of a subject read once and questions in batches, beside whole prompts one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from qwen3_ops.bench.machine import describe_machine
from qwen3_ops.bench.models import HIDDEN_1024, load_hf, write_random_model
from qwen3_ops.errors import QualityGate

if TYPE_CHECKING:
    from qwen3_ops.native.model import Qwen3

EXAMPLES, QUESTION, NEW = 640, (60, 120), 2
"""Tokens of five examples, of a question (from, to), and generated ones: about MMLU's."""

SHAPE: Mapping[str, int | bool] = {**HIDDEN_1024, "num_hidden_layers": 4, "tie_word_embeddings": True}
"""Four layers of Qwen3-0.6B."""

Way = Literal["shared and batched", "one at a time, with a cache", "one at a time, without a cache"]


class Figures(BaseModel):
    """Seconds and CPU seconds for all questions -> by the way they were asked; the answers are the same."""

    machine: str
    questions: int
    wall: dict[Way, float]
    cpu: dict[Way, float]


def measure(*, questions: int, seed: int, shape: Mapping[str, int | bool] = SHAPE) -> Figures:
    """One subject of ``questions`` questions, for a model with random weights, in fp32.

    Args:
        shape: entries of its config.json.

    Raises:
        QualityGate: an answer depends on how it was asked for.
    """
    import random

    import torch

    with TemporaryDirectory(prefix="qwen3-ops-bench-") as name:
        spec = write_random_model(Path(name) / "model", seed=seed, **shape)
        model = load_hf(Path(name) / "model", dtype=torch.float32).eval()
    draw = random.Random(seed)  # noqa: S311 (samples, no secrets)
    examples = [draw.randrange(spec.padded_vocab_size) for _ in range(EXAMPLES)]
    prompts = [examples + [draw.randrange(spec.padded_vocab_size) for _ in range(draw.randint(*QUESTION))] for _ in range(questions)]
    ways: dict[Way, Callable[[Qwen3, list[list[int]]], list[list[int]]]] = {
        "shared and batched": _shared,
        "one at a time, with a cache": _one_by_one,
        "one at a time, without a cache": _as_the_real_tool,
    }
    answers: dict[Way, list[list[int]]] = {}
    wall: dict[Way, float] = {}
    cpu: dict[Way, float] = {}
    for way, answer in ways.items():
        answer(model, prompts[:1])
        started, used = time.perf_counter(), time.process_time()
        answers[way] = answer(model, prompts)
        wall[way], cpu[way] = time.perf_counter() - started, time.process_time() - used
    if any(found != answers["shared and batched"] for found in answers.values()):
        raise QualityGate("an answer depends on how it was asked for", value=answers)
    return Figures(machine=describe_machine(), questions=questions, wall=wall, cpu=cpu)


def _shared(model: Qwen3, prompts: list[list[int]]) -> list[list[int]]:
    from qwen3_ops.native.mmlu.batches import answer_all

    done = dict(answer_all(model, prompts, max_new_tokens=NEW, eos=None))
    return [done[number].tokens for number in range(len(prompts))]


def _one_by_one(model: Qwen3, prompts: list[list[int]]) -> list[list[int]]:
    from qwen3_ops.native.generation.decode import complete

    return [complete(model, [prompt], max_new_tokens=NEW, eos=None)[0].tokens for prompt in prompts]


def _as_the_real_tool(model: Qwen3, prompts: list[list[int]]) -> list[list[int]]:
    """The whole prompt again for every new token, and logits of its last position only (the real tool makes them for all)."""
    import torch

    answers = []
    with torch.inference_mode():
        for prompt in prompts:
            tokens = list(prompt)
            for _ in range(NEW):
                hidden = model.hidden_states(torch.tensor([tokens]))
                tokens.append(int((hidden[:, -1] @ model.output_weight.T).argmax()))
            answers.append(tokens[len(prompt) :])
    return answers


def print_figures(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "questions/s", "CPU s a question", "times", title=f"{figures.machine}; {figures.questions} questions of one subject")
    slowest = max(figures.wall.values())
    for way, wall in figures.wall.items():
        table.add_row(way, f"{figures.questions / wall:.2f}", f"{figures.cpu[way] / figures.questions:.2f}", f"{slowest / wall:.1f}")
    Console().print(table)
