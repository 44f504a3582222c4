"""Beam search with a KV cache, by the rules of the real tool: length penalty 1, no early stop.

It finds what the real tool finds; that one then prints the best beam still open, whatever an eos has ended. Where candidates are drawn,
the real tool draws only while the beams' probabilities sum up to between 1e-5 and 1 (for a few tokens) and takes the likeliest
afterwards, and leaves --top-k and --top-p out unless the former is above 1. Here all tokens are drawn from what both leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen3_ops.native.generation.decode import Completion, cut
from qwen3_ops.native.model import KVCache, Qwen3
from qwen3_ops.native.products import linear


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How beams are continued.

    Attributes:
        log_probabilities: fp32 logits [b, V] -> log probabilities [b, V].
        pick: summed log probabilities [n], a count -> the indices of so many candidates, the likeliest first.
    """

    log_probabilities: Callable[[Tensor], Tensor]
    pick: Callable[[Tensor, int], Tensor]


def likeliest() -> Strategy:
    return Strategy(
        log_probabilities=lambda logits: logits.log_softmax(-1), pick=lambda scores, count: scores.topk(min(count, len(scores))).indices
    )


def sampled(*, temperature: float, top_k: int, top_p: float, seed: int) -> Strategy:
    """Candidates are drawn, without repetition, by their probability; of the tokens that ``cut`` leaves."""
    generator = torch.Generator().manual_seed(seed)

    def pick(scores: Tensor, count: int) -> Tensor:
        weights = (scores - scores.max()).exp().cpu()
        drawn = torch.multinomial(weights, min(count, int((weights > 0).sum())), generator=generator)
        return drawn[weights[drawn].argsort(descending=True, stable=True)].to(scores.device)

    return Strategy(log_probabilities=lambda logits: cut(logits, temperature=temperature, top_k=top_k, top_p=top_p).log(), pick=pick)


@torch.inference_mode()
def beam_search(model: Qwen3, prompt: Sequence[int], *, num_beams: int, max_new_tokens: int, eos: int, strategy: Strategy) -> Completion:
    """The continuation of ``prompt`` with the highest mean log probability among those that the beams reach."""
    device = model.output_weight.device
    cache = KVCache(model.spec, batch=1, max_length=len(prompt) + max_new_tokens, dtype=model.output_weight.dtype, device=device)
    ids = torch.tensor([list(prompt)], device=device)
    beams: list[list[int]] = [[]]
    scores = torch.zeros(1, device=device)
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, max_new_tokens + 1):
        logits = linear(model.hidden_states(ids, cache=cache)[:, -1], model.output_weight).float()
        if not bool(logits.isfinite().all()):
            return Completion(tokens=beams[0], finite=False)
        totals = (scores[:, None] + strategy.log_probabilities(logits)).flatten()
        candidates = strategy.pick(totals, 2 * num_beams)
        ended += _ended(candidates[:num_beams], totals, beams, eos=eos, length=length)
        ended = sorted(ended, key=lambda item: -item[0])[:num_beams]
        if len(ended) == num_beams and ended[-1][0] >= float(totals[candidates].max()) / length:
            return Completion(tokens=ended[0][1], ended=True)
        going_on = candidates[candidates % logits.shape[1] != eos][:num_beams]
        if not len(going_on):
            return Completion(tokens=ended[0][1], ended=True)
        rows, tokens = going_on // logits.shape[1], going_on % logits.shape[1]
        cache.reorder(rows)
        beams = [[*beams[row], token] for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
        scores, ids = totals[going_on], tokens[:, None]
    still_open = [(score / max_new_tokens, beam) for score, beam in zip(scores.tolist(), beams, strict=True)]
    best = max([*ended, *still_open], key=lambda item: item[0])
    return Completion(tokens=best[1], ended=best in ended)


def _ended(candidates: Tensor, totals: Tensor, beams: list[list[int]], *, eos: int, length: int) -> list[tuple[float, list[int]]]:
    """Mean log probability (eos counts) and tokens (without it) of the beams that eos ends; only as good as the other ones that go on."""
    width = len(totals) // len(beams)
    return [(float(totals[index]) / length, beams[index // width]) for index in candidates.tolist() if index % width == eos]
