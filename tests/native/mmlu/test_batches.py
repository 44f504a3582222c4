"""Batches of questions answer as one question at a time does."""

from __future__ import annotations

import pytest
import torch

from qwen3_ops.events import Events
from qwen3_ops.native.generation.decode import complete
from qwen3_ops.native.generation.flags import FLAGS
from qwen3_ops.native.generation.loading import load_model
from qwen3_ops.native.mmlu import batches
from qwen3_ops.native.mmlu.batches import answer_all


def prompts(common: int, lengths: tuple[int, ...]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(4)

    def draw(count: int) -> list[int]:
        return torch.randint(0, 500, (count,), generator=generator).tolist()

    beginning = draw(common)
    return [beginning + draw(length) for length in lengths]


@pytest.mark.parametrize(("tokens", "cache"), [(8192, 4 << 30), (20, 4 << 30), (8192, 40_000), (1, 1)])
@pytest.mark.parametrize("asked", [prompts(30, (9, 2, 5, 14, 1, 5)), prompts(0, (3, 8)), prompts(5, (4,)), [[7, 8, 9]] * 3])
def test_batches_change_no_answer(
    tokens: int, cache: int, asked: list[list[int]], inference_argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    monkeypatch.setattr(batches, "_BATCH_TOKENS", tokens)
    monkeypatch.setattr(batches, "_CACHE_BYTES", cache)
    answered = dict(answer_all(model, asked, max_new_tokens=3, eos=509))
    assert sorted(answered) == list(range(len(asked)))
    for number, prompt in enumerate(asked):
        assert answered[number].tokens == complete(model, [prompt], max_new_tokens=3, eos=509)[0].tokens


def test_batches_keep_to_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BATCH_TOKENS", 30)
    made = list(batches._batches([[0] * length for length in (10, 40, 3, 10, 10, 12)], common=100, new=2, room=10_000))
    assert made == [[2, 0, 3], [4, 5], [1]]
    made = list(batches._batches([[0] * 10] * 5, common=100, new=2, room=230))
    assert made == [[0, 1], [2, 3], [4]]
