"""The estimate against known figures, and its sanity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.forecast.host import conversion_memory
from qwen3_ops.forecast.measured import StepTime
from qwen3_ops.forecast.memory import GIB, device_memory, layer_activations
from qwen3_ops.forecast.parameters import adapter_parameters, shares
from qwen3_ops.forecast.schedule import bubble, micro_batches, schedule
from qwen3_ops.model import released
from qwen3_ops.recipes import FITS, production


def run(size="14B", kind="full", **changes):
    return production(size, kind).model_copy(update=changes)


def spec(size="14B"):
    return released(f"Qwen3-{size}")


@pytest.mark.parametrize(
    ("size", "billions"),
    [("0.6B", 0.596), ("1.7B", 1.72), ("4B", 4.02), ("8B", 8.19), ("14B", 14.77), ("32B", 32.76), ("30B-A3B", 30.53)],
)
def test_the_released_models_have_their_published_number_of_weights(size, billions):
    assert spec(size).num_parameters / 1e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize("size", FITS)
@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("pp", [1, 2, 4])
def test_the_shares_are_the_model(size, tp, pp):
    model = spec(size)
    every = shares(
        run(size, tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, expert_model_parallel_size=1), model, lora=False
    )
    norms = model.num_layers * (2 * model.hidden_size + 2 * model.kv_channels + (model.num_experts or 0) * model.hidden_size)
    again = 0 if model.untie_embeddings_and_output_weights or pp == 1 else model.padded_vocab_size * model.hidden_size
    whole = sum(share.weights for share in every) * tp - (tp - 1) * (norms + model.hidden_size)
    assert whole == model.num_parameters + again


def test_an_adapter_has_as_many_weights_as_peft_says():
    """r (in + out) of each target: Qwen3-14B, r 16, all linear layers."""
    per_layer = 16 * ((5120 + 7168) + (5120 + 5120) + (5120 + 2 * 17408) + (17408 + 5120))
    assert adapter_parameters(run(kind="lora"), spec()) == 40 * per_layer


def test_full_training_of_the_14b_takes_18_bytes_a_weight():
    memory = device_memory(run(use_distributed_optimizer=False), spec(), lora=False)
    share = shares(run(), spec(), lora=False)[memory.stage].weights
    assert memory.weights + memory.gradients + memory.optimizer == 18 * share
    assert 14.77e9 / 8 * 18 < memory.standing < 64 * GIB


def test_the_distributed_optimizer_cuts_twelve_of_them():
    wide = {"nproc_per_node": 64, "global_batch_size": 128}
    memory = device_memory(run(**wide), spec(), lora=False)
    share = shares(run(), spec(), lora=False)[memory.stage].weights
    assert memory.optimizer == 12 * share // 8
    assert memory.gradients == 4 * share


def test_lora_holds_gradients_of_the_adapter_only():
    memory = device_memory(run(kind="lora"), spec(), lora=True)
    assert memory.gradients + memory.optimizer < 0.02 * memory.weights * 8


def test_a_layers_activations_by_hand():
    """14B, one record of 4096 tokens, TP1: 2 * 4096 * (4 * 5120 + 4 * (5120 + 1024) + 3 * 17408)."""
    alone = run(tensor_model_parallel_size=1, pipeline_model_parallel_size=8)
    assert layer_activations(alone, spec()) == 2 * 4096 * (4 * 5120 + 4 * (5120 + 1024) + 3 * 17408)


def test_conversion_memory_is_the_models_in_one_tool_and_not_in_the_other():
    assert conversion_memory(spec(), engine="mindspeed") == pytest.approx(148e9, rel=0.01)
    assert conversion_memory(spec(), engine="native") == conversion_memory(spec("0.6B"), engine="native") < 1e9


LAYOUTS = st.fixed_dictionaries(
    {
        "tensor_model_parallel_size": st.sampled_from([1, 2, 4]),
        "pipeline_model_parallel_size": st.sampled_from([1, 2, 4]),
        "context_parallel_size": st.sampled_from([1, 2]),
        "micro_batch_size": st.sampled_from([1, 2, 4]),
        "seq_length": st.sampled_from([512, 4096, 32768]),
        "sequence_parallel": st.booleans(),
        "use_distributed_optimizer": st.booleans(),
        "recompute_granularity": st.sampled_from([None, "full"]),
        "recompute_num_layers": st.sampled_from([1, 2]),
    }
)


def sized(changes, *, copies=2, micro=8):
    """``changes`` on as many devices as give ``copies`` of the model and ``micro`` micro batches."""
    parallel = changes["tensor_model_parallel_size"] * changes["pipeline_model_parallel_size"] * changes["context_parallel_size"]
    return {**changes, "nproc_per_node": parallel * copies, "global_batch_size": micro * copies * changes["micro_batch_size"]}


@given(changes=LAYOUTS, size=st.sampled_from(list(FITS)), kind=st.sampled_from(["full", "lora"]))
def test_more_of_what_saves_memory_never_needs_more(changes, size, kind):
    def total(**more):
        return device_memory(run(size, kind, **sized({**changes, **more})), spec(size), lora=kind == "lora").total

    base = total()
    assert total(tensor_model_parallel_size=2 * changes["tensor_model_parallel_size"]) <= base
    assert total(context_parallel_size=2 * changes["context_parallel_size"]) <= base
    assert total(micro_batch_size=2 * changes["micro_batch_size"]) >= base
    assert total(seq_length=2 * changes["seq_length"]) >= base
    assert total(sequence_parallel=True) <= total(sequence_parallel=False)
    assert total(use_distributed_optimizer=True) <= total(use_distributed_optimizer=False)
    assert total(recompute_granularity="full", recompute_num_layers=1) <= total(recompute_granularity=None)


@given(changes=LAYOUTS, size=st.sampled_from(list(FITS)))
def test_lora_never_needs_more_than_full_training(changes, size):
    whole = run(size, "full", **sized(changes))
    assert device_memory(whole, spec(size), lora=True).total <= device_memory(whole, spec(size), lora=False).total


@given(changes=LAYOUTS)
def test_the_bubble_shrinks_with_micro_batches(changes):
    few, many = (run(**sized(changes, micro=micro)) for micro in (4, 16))
    assert micro_batches(few) == 4
    assert 0 <= bubble(many, spec()) <= bubble(few, spec()) < 1
    if changes["pipeline_model_parallel_size"] == 1:
        assert bubble(few, spec()) == 0


def test_the_runbooks_bubble_and_time():
    """PP4, 16 micro batches: 3 of 19 parts. 1000 steps of 12 s on 8 devices."""
    told = schedule(run(), spec(), step=StepTime(seconds=12, source="step_seconds"))
    assert told.bubble == pytest.approx(3 / 19)
    assert (told.seconds, told.device_hours) == (12000, pytest.approx(12000 * 8 / 3600))
    assert schedule(run(), spec(), step=None).seconds is None


def test_virtual_stages_shorten_the_bubble():
    assert bubble(run(num_layers_per_virtual_pipeline_stage=5), spec()) == pytest.approx(3 / (2 * 16 + 3))
