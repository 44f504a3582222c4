from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_ops.artifacts import Manifest, write_manifest
from qwen3_ops.forecast.measured import step_time
from qwen3_ops.pipelines import FULL_SFT, LORA_SFT
from qwen3_ops.recipes import production


@pytest.fixture
def run(tmp_path):
    return production("14B", "lora").model_copy(update={"output_root": str(tmp_path)})


def trained(run, name, *, finished, seconds=100.0, iterations=50, **changes):
    folder = Path(run.output_root, "artifacts", "train_lora", name)
    folder.mkdir(parents=True)
    write_manifest(
        folder,
        Manifest(
            kind="lora_checkpoint", stage="train_lora", verb="train", engine=run.engine, key=name, argv=[],
            config=run.model_copy(update=changes).model_dump(mode="json"), metrics={"seconds": seconds, "iterations": iterations},
            started_at=finished, finished_at=finished, seconds=seconds,
        ),
    )  # fmt: skip
    return str(folder)


def test_what_the_run_says_comes_first(run):
    trained(run, "a", finished="2026-01-01")
    told = step_time(run.model_copy(update={"step_seconds": 7}), LORA_SFT)
    assert told is not None
    assert (told.seconds, told.source) == (7, "step_seconds")


def test_the_last_training_of_the_same_kind_is_the_measure(run):
    trained(run, "old", finished="2026-01-01", seconds=500)
    last = trained(run, "new", finished="2026-02-01", train_iters=9, lr=1.0, seed=3)
    trained(run, "other", finished="2026-03-01", tensor_model_parallel_size=8)
    told = step_time(run, LORA_SFT)
    assert told is not None
    assert (told.seconds, told.source) == (2.0, last)


def test_without_one_nothing_is_told(run):
    assert step_time(run, LORA_SFT) is None
    (Path(trained(run, "x", finished="2026-01-01")) / "manifest.json").write_text("{")
    trained(run, "stopped at once", finished="2026-01-01", seconds=0)
    assert step_time(run, LORA_SFT) is None
    trained(run, "y", finished="2026-01-01")
    assert step_time(run, FULL_SFT) is None
