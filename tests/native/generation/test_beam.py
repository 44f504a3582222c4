"""Beam search against transformers' own, and what it must do by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.events import Events
from qwen3_ops.native.generation.beam import beam_search, likeliest, sampled
from qwen3_ops.native.generation.decode import complete, cut
from qwen3_ops.native.generation.flags import FLAGS
from qwen3_ops.native.generation.verb import run
from qwen3_ops.verbs import Context

PROMPT = [5, 11, 2, 60, 33]


@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("eos", [96, 21, 17])  # ends after one token, at once, never
def test_equals_transformers(num_beams: int, eos: int, spec: Any, both: Callable[..., Any]) -> None:
    model, reference = both(spec)
    theirs = reference.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long), num_beams=num_beams, do_sample=False,
        max_new_tokens=12, eos_token_id=eos, pad_token_id=eos, length_penalty=1.0, early_stopping=False,
    )[0, len(PROMPT) :].tolist()  # fmt: skip
    ours = beam_search(model, PROMPT, num_beams=num_beams, max_new_tokens=12, eos=eos, strategy=likeliest())
    assert ours.tokens == [token for token in theirs if token != eos]
    assert ours.ended == (eos in theirs)


def score(model: Any, tokens: list[int]) -> float:
    with torch.inference_mode():
        log_p = model(torch.tensor([PROMPT + tokens]))[0, len(PROMPT) - 1 : -1].float().log_softmax(-1)
    return float(log_p.gather(1, torch.tensor(tokens)[:, None]).sum())


def test_it_finds_no_worse_than_greedy(spec: Any, both: Callable[..., Any]) -> None:
    model, _ = both(spec)
    (greedy,) = complete(model, [PROMPT], max_new_tokens=8, eos=-1)
    beam = beam_search(model, PROMPT, num_beams=8, max_new_tokens=8, eos=-1, strategy=likeliest())
    assert score(model, beam.tokens) >= score(model, greedy.tokens)


def test_sampling_is_seeded_and_cut(spec: Any, both: Callable[..., Any]) -> None:
    model, _ = both(spec)

    def draw(seed: int, top_k: int) -> list[int]:
        strategy = sampled(temperature=1.0, top_k=top_k, top_p=1.0, seed=seed)
        return beam_search(model, PROMPT, num_beams=2, max_new_tokens=8, eos=-1, strategy=strategy).tokens

    assert draw(1, 0) == draw(1, 0)
    assert len({tuple(draw(seed, 0)) for seed in range(5)}) > 1
    assert draw(1, 1) == complete(model, [PROMPT], max_new_tokens=8, eos=-1)[0].tokens  # nothing to choose


def test_cut_keeps_the_likeliest_token() -> None:
    kept = cut(torch.tensor([[0.0, 3.0, 2.0, 1.0]]), temperature=1.0, top_k=0, top_p=0.01)
    assert kept.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("task", "title"), [("beam_search", "Beam Search"), ("beam_search_with_sampling", "Beam Search with sampling")])
def test_the_tasks(task: str, title: str, inference_argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("how are you?\nWhat is 2 + 3?\n", encoding="utf-8")
    argv = [*inference_argv, "--task", task, "--max-new-tokens", "6", "--prompts", str(prompts)]
    outcome = run(FLAGS.parse(argv)[0], Context(events=Events(), output=tmp_path))
    assert f"= {title} =" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["task"], row["prompt"]) for row in rows] == [(task, "how are you?"), (task, "What is 2 + 3?")]
    assert outcome.metrics["prompts"] == 2
