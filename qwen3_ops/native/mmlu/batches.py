"""Many questions at once: what they begin with is read once, the rest goes in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.generation.decode import Completion, common_beginning, complete, read
from qwen3_ops.native.model import Qwen3

_BATCH_TOKENS = 8192  # that the model works on at once
_CACHE_BYTES = 4 << 30  # of keys and values, the beginning counted for every question


def answer_all(model: Qwen3, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, eos: int | None) -> Iterator[tuple[int, Completion]]:
    """Greedy continuations of ``prompts`` with their numbers, the short ones first.

    The prompts of a subject share its examples, by far the longest part.
    """
    common = common_beginning(prompts)
    beginning = read(model, prompts[0][:common])
    rest = [prompt[common:] for prompt in prompts]
    room = _CACHE_BYTES // _bytes_per_token(model.spec, model.output_weight.element_size())
    for batch in _batches(rest, common=common, new=max_new_tokens, room=room):
        done = complete(model, [rest[number] for number in batch], max_new_tokens=max_new_tokens, eos=eos, beginning=beginning)
        yield from zip(batch, done, strict=True)


def _bytes_per_token(spec: ModelSpec, element_size: int) -> int:
    return 2 * spec.num_layers * spec.num_query_groups * spec.kv_channels * element_size


def _batches(rest: Sequence[Sequence[int]], *, common: int, new: int, room: int) -> Iterator[list[int]]:
    """Numbers of the prompts by length; a prompt that is too long for a batch has its own."""
    batch: list[int] = []
    for number in sorted(range(len(rest)), key=lambda number: len(rest[number])):
        width, rows = len(rest[number]), len(batch) + 1
        if batch and (width * rows > _BATCH_TOKENS or (common + width + new) * rows > room):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
