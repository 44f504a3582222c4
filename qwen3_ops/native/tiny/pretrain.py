"""A base model for the twin: under a minute of pre-training on one core."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.model import Qwen3, build_model

BATCH = 32
_WARMUP = 20
_LR, _LAST_LR = 4e-3, 4e-4
_IGNORED = -100


def pretrain(spec: ModelSpec, tokenizer: Tokenizer, texts: Sequence[str], *, seed: int, events: Events) -> Qwen3:
    """A model in fp32 that has read ``texts`` once, ``BATCH`` at a time; the same for the same seed."""
    model = build_model(spec, dtype=torch.float32)
    _draw_weights(model, torch.Generator().manual_seed(seed))
    batches = _batches([tokenizer.encode(text).ids for text in texts], seed=seed)
    steps = len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, betas=(0.9, 0.95), weight_decay=0.05)
    with events.progress("pre-training", total=steps, unit="steps") as progress:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps)
            loss = _loss(model, batches[step])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.advance(loss=loss.item())
    return model


def _batches(samples: Sequence[list[int]], *, seed: int) -> list[list[list[int]]]:
    """Samples of like length together, which saves two thirds of the padding; the batches in random order."""
    ordered = sorted(samples, key=len)
    batches = [ordered[first : first + BATCH] for first in range(0, len(ordered) - BATCH + 1, BATCH)]
    random.Random(seed).shuffle(batches)  # noqa: S311 (no secret)
    return batches


def _draw_weights(model: Qwen3, generator: torch.Generator) -> None:
    """Wide embeddings: in so few steps words that start out close would stay close."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=0.5 if name.startswith("embedding") else 0.05, generator=generator)


def _learning_rate(step: int, steps: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / _WARMUP) * (_LAST_LR + (_LR - _LAST_LR) * cosine)


def _loss(model: Qwen3, batch: Sequence[Sequence[int]]) -> Tensor:
    """Mean cross-entropy over all tokens but each text's first; texts are padded on the right."""
    width = max(map(len, batch))
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in batch])
    labels = torch.tensor([[*tokens, *[_IGNORED] * (width - len(tokens))] for tokens in batch])[:, 1:]
    learned = labels != _IGNORED
    return F.cross_entropy(F.linear(model.hidden_states(ids[:, :-1])[learned], model.output_weight), labels[learned])
