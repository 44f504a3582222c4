"""The worked example of docs/planning.md is what the code reckons."""

from __future__ import annotations

from pathlib import Path

from qwen3_ops.forecast.disk import artifact_bytes
from qwen3_ops.forecast.measured import StepTime
from qwen3_ops.forecast.memory import GIB, device_memory, layer_activations, longest_sequence
from qwen3_ops.forecast.parameters import shares
from qwen3_ops.forecast.schedule import schedule
from qwen3_ops.forecast.sweep import sweep
from qwen3_ops.model import released
from qwen3_ops.pipelines import FULL_SFT
from qwen3_ops.recipes import production

TEXT = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()


def test_the_worked_example():
    full, lora, model = production("14B", "full"), production("14B", "lora"), released("Qwen3-14B")
    memory = device_memory(full, model, lora=False)
    training = schedule(full, model, step=StepTime(seconds=12, source="step_seconds"))
    for text in (
        f"{shares(full, model, lora=False)[1].weights / 1e9:.2f} G. The first stage",
        f"{shares(full, model, lora=False)[0].weights / 1e9:.2f} G × (2 + 4 + 12) bytes = {(memory.standing - memory.runtime) / GIB:.1f} GiB",
        f"{memory.standing / GIB:.1f} GiB",
        f"/ 2 = {layer_activations(full, model) / GIB:.2f} GiB. Ten layers, four micro batches waiting: {memory.activations / GIB:.1f} GiB",
        f"**Together** {memory.total / GIB:.1f} GiB of 64",
        f"3/19 = {training.bubble:.1%}".replace("%", " %"),
        f"= 207 GB; two kept and one being written {artifact_bytes(full, model, 'train_full') / 1e9:.0f} GB",
        f"{training.device_hours:.1f} device hours",
        f"{device_memory(lora, model, lora=True).total / GIB:.1f} GiB at 4096 tokens",
        f"{longest_sequence(lora, model, lora=True, available=64 * GIB)} tokens fit",
    ):
        assert text in TEXT, text


def test_the_sweep_of_the_example():
    table = [line.split() for line in TEXT.splitlines() if line.startswith("     ")]
    found = [
        [
            str(candidate.changes["tensor_model_parallel_size"]),
            str(candidate.changes["pipeline_model_parallel_size"]),
            str(candidate.changes["micro_batch_size"]),
            str(candidate.changes["recompute_granularity"] or "-"),
            str(candidate.data_parallel_size),
            str(candidate.micro_batches),
            f"{candidate.bubble:.1%}",
            f"{candidate.work:.3f}",
            f"{candidate.memory / GIB:.1f}",
        ]
        for candidate in sweep(production("14B", "full"), released("Qwen3-14B"), FULL_SFT)
    ]
    assert len(table) == 4
    assert table[:2] == found[:2]
    assert all(row in found for row in table)
