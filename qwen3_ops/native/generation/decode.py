"""Batched generation with a KV cache.

Prompts of one batch share the computation of their common beginning (MMLU's five examples),
the rest is padded on the left, so that all rows append their new tokens at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen3_ops.native.model import KVCache, Qwen3
from qwen3_ops.native.products import linear

_PAD = 0  # any token: none sees it

Sampler = Callable[[Tensor], Tensor]
"""fp32 logits [b, V] -> token ids [b]."""


@dataclass(kw_only=True)
class Completion:
    """What a model wrote after one prompt.

    Attributes:
        tokens: new ones, without the eos that ended them.
        ended: by eos rather than by the limit.
        finite: every logit was a number; the whole batch stops at the first that is not.
    """

    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    finite: bool = True


def greedy(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


def cut(logits: Tensor, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Softmax at ``temperature``, zero but for the ``top_k`` likeliest tokens and of them those within the mass ``top_p`` (0: all).

    Tokens as likely as the k-th stay, as in the real tool: bf16 logits are often equal, and none of them is the one to leave out.
    """
    below = logits - logits.amax(-1, keepdim=True)  # divided by the least temperature it is still no NaN
    probabilities, order = (below / temperature).softmax(-1).sort(descending=True)
    if 0 < top_k < probabilities.shape[-1]:
        probabilities[probabilities < probabilities[:, top_k - 1 : top_k]] = 0
    if 0 < top_p < 1:  # at 1 the rounding of the sum would cut the unlikely ones
        total = probabilities.cumsum(-1)
        probabilities[:, 1:][total[:, :-1] > top_p * total[:, -1:]] = 0
    kept = torch.zeros_like(probabilities).scatter_(-1, order, probabilities)
    return kept / kept.sum(-1, keepdim=True)


def sampler(*, temperature: float, top_k: int, top_p: float, seed: int) -> Sampler:
    """Draws from what ``cut`` leaves."""
    generator = torch.Generator().manual_seed(seed)

    def draw(logits: Tensor) -> Tensor:
        kept = cut(logits.cpu(), temperature=temperature, top_k=top_k, top_p=top_p)
        return torch.multinomial(kept, 1, generator=generator).squeeze(-1).to(logits.device)

    return draw


@torch.inference_mode()
def read(model: Qwen3, beginning: Sequence[int]) -> KVCache:
    """What the model keeps of a beginning (which may be empty) that several prompts share."""
    weight = model.output_weight
    cache = KVCache(model.spec, batch=1, max_length=len(beginning), dtype=weight.dtype, device=weight.device)
    if beginning:
        model.hidden_states(torch.tensor([list(beginning)], device=weight.device), cache=cache)
    return cache


@torch.inference_mode()
def complete(
    model: Qwen3,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos: int | None,
    choose: Sampler = greedy,
    beginning: KVCache | None = None,
) -> list[Completion]:
    """Continue ``prompts`` (at least one token each), all in one batch.

    Args:
        eos: token that ends a text; None: each gets ``max_new_tokens``.
        beginning: what was read before the prompts; when not given, what they have in common is read once for all.

    Returns:
        One completion a prompt, in their order.
    """
    if beginning is None:
        common = common_beginning(prompts)
        beginning, prompts = read(model, prompts[0][:common]), [prompt[common:] for prompt in prompts]
    device = model.output_weight.device
    shared, width = beginning.length, max(map(len, prompts))
    pads = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
    ids = torch.tensor([[_PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    cache = beginning.spread(batch=len(prompts), max_length=shared + width + max_new_tokens)
    columns = torch.arange(shared + width + max_new_tokens, device=device)
    padding = (columns >= shared) & (columns < shared + pads[:, None]) if bool(pads.any()) else None

    done = [Completion() for _ in prompts]
    while True:
        end = cache.length + ids.shape[1]
        positions = (columns[cache.length : end] - pads[:, None]).clamp(min=0)
        hidden = model.hidden_states(ids, positions=positions, padding=None if padding is None else padding[:, :end], cache=cache)
        logits = linear(hidden[:, -1], model.output_weight).float()
        finite = logits.isfinite().all(-1).tolist()
        if not all(finite):
            for item, is_finite in zip(done, finite, strict=True):
                item.finite = is_finite or item.ended
            return done
        chosen = choose(logits)
        _note(done, chosen.tolist(), eos=eos)
        if all(item.ended or len(item.tokens) == max_new_tokens for item in done):
            return done
        ids = chosen[:, None]


def _note(done: list[Completion], chosen: list[int], *, eos: int | None) -> None:
    for item, token in zip(done, chosen, strict=True):
        if item.ended:
            continue
        if token == eos:
            item.ended = True
        else:
            item.tokens.append(token)


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts begin with, leaving at least one of each; 0 for a single prompt."""
    if len(prompts) == 1:
        return 0
    limit = min(map(len, prompts)) - 1
    columns = zip(*(prompt[:limit] for prompt in prompts), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), limit)
