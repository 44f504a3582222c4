from __future__ import annotations

from itertools import pairwise

import pytest

from qwen3_ops.forecast.memory import GIB, device_memory
from qwen3_ops.forecast.sweep import sweep
from qwen3_ops.model import released
from qwen3_ops.pipelines import FULL_SFT, LORA_SFT
from qwen3_ops.recipes import production


def found(size="14B", kind="full", **changes):
    run = production(size, kind).model_copy(update=changes)
    return run, sweep(run, released(f"Qwen3-{size}"), FULL_SFT if kind == "full" else LORA_SFT)


@pytest.mark.parametrize(("size", "kind"), [("14B", "full"), ("14B", "lora"), ("0.6B", "full"), ("30B-A3B", "lora")])
def test_what_is_offered_is_valid_and_fits(size, kind):
    run, candidates = found(size, kind)
    assert candidates
    for candidate in candidates:
        chosen = run.model_copy(update=candidate.changes)
        assert device_memory(chosen, released(f"Qwen3-{size}"), lora=kind == "lora").total == candidate.memory <= 64 * GIB
        parallel = chosen.tensor_model_parallel_size * chosen.pipeline_model_parallel_size
        assert run.nproc_per_node * run.nnodes == parallel * candidate.data_parallel_size
        assert run.global_batch_size == candidate.micro_batches * chosen.micro_batch_size * candidate.data_parallel_size
    assert all(better.work <= worse.work + 1e-3 for better, worse in pairwise(candidates))


def test_less_memory_offers_less():
    def offers(memory):
        return {tuple(candidate.changes.items()) for candidate in found(device_memory=memory)[1]}

    assert offers(32) < offers(64) < offers(128)
    assert offers(8) == set()


def test_more_devices_never_make_it_impossible():
    assert found(device_memory=40)[1]
    assert found(device_memory=40, nnodes=2)[1]
