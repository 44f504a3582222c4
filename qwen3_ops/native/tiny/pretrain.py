"""A base model for the twin: under a minute of pre-training on one core."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.model import Qwen3, build_model
from qwen3_ops.native.tiny.texts import Text

BATCH = 32  # texts read in a step
_WARMUP = 20  # steps
_LR, _LAST_LR = 2e-3, 4e-5
_IGNORED = -100


def pretrain(spec: ModelSpec, tokenizer: Tokenizer, texts: Sequence[Text], *, seed: int, events: Events) -> Qwen3:
    """A model in fp32 that has read ``texts`` once, in order, ``BATCH`` at a time; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(spec, dtype=torch.float32)
    _draw_weights(model, generator)
    steps = len(texts) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, betas=(0.9, 0.95), weight_decay=0.1)
    with events.progress("pre-training", total=steps, unit="steps") as progress:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps)
            batch = texts[step * BATCH : (step + 1) * BATCH]
            loss = _loss(model, [_encode(text, tokenizer) for text in batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.advance(loss=loss.item())
    return model


def _draw_weights(model: Qwen3, generator: torch.Generator) -> None:
    """Unit scale through every layer; narrow where a layer writes into the residual stream."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
            continue
        std = parameter.shape[1] ** -0.5
        if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
            std *= (2 * model.spec.num_layers) ** -0.5
        elif name.startswith("embedding"):
            std = 0.5
        elif name.startswith("output_layer"):
            std = 0.02
        nn.init.normal_(parameter, std=std, generator=generator)


def _learning_rate(step: int, steps: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / _WARMUP) * (_LAST_LR + (_LR - _LAST_LR) * cosine)


def _encode(text: Text, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Tokens, and the labels of the learned ones."""
    tokens: list[int] = []
    labels: list[int] = []
    for piece in text:
        ids = tokenizer.encode(piece.text).ids
        tokens += ids
        labels += ids if piece.learned else [_IGNORED] * len(ids)
    return tokens, labels


def _loss(model: Qwen3, batch: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Mean over the texts of each text's mean, so that a letter in a list weighs as much as a sentence."""
    width = max(len(tokens) for tokens, _ in batch)
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in batch])
    labels = torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in batch])[:, 1:]
    learned = labels != _IGNORED
    logits = F.linear(model.hidden_states(ids[:, :-1])[learned], model.output_weight)
    weights = (learned / learned.sum(1, keepdim=True))[learned] / len(batch)
    return (F.cross_entropy(logits, labels[learned], reduction="none") * weights).sum()
