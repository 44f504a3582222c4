"""Full fine-tuning and pre-training as the DAGs have them, a few steps long, through the native engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3_ops.artifacts import read_manifest
from qwen3_ops.errors import ExitCode
from qwen3_ops.pipelines import PIPELINES
from qwen3_ops.plan import make_plan, save_plan
from qwen3_ops.run_stage import run_stage

QUESTION = "What is one and one?,1,2,3,4,B\n"


@pytest.fixture
def pipeline_request(hf_model, golden, tmp_path):
    """A few steps on a tiny model."""
    tasks = tmp_path / "mmlu" / "data" / "test"
    tasks.mkdir(parents=True)
    (tasks / "abstract_algebra_test.csv").write_text(QUESTION)
    (tasks.parent / "dev").mkdir()
    (tasks.parent / "dev" / "abstract_algebra_dev.csv").write_text(QUESTION * 5)
    return {
        "recipe": "tiny-full",
        "model_dir": str(hf_model),
        "input": str(golden / "data" / "inputs" / "alpaca.parquet"),
        "task_data_path": str(tasks),
        "output_root": str(tmp_path / "out"),
        "train_iters": 3,
        "save_interval": 2,
        "keep_last": 1,
        "global_batch_size": 2,
        "micro_batch_size": 1,
        "seq_length": 64,
        "max_new_tokens": 2,
        "lr_warmup_fraction": 0,
    }


@pytest.mark.parametrize(("pipeline", "recipe", "data"), [("full_sft", "tiny-full", "alpaca"), ("pretrain", "tiny-pretrain", "pretrain")])
def test_a_pipeline_runs_to_its_end(pipeline, recipe, data, pipeline_request, golden):
    request = {**pipeline_request, "recipe": recipe, "input": str(golden / "data" / "inputs" / f"{data}.parquet")}
    plan = make_plan(request, stages=PIPELINES[pipeline], run_id="r")
    path = save_plan(plan)
    for stage in plan.stages:
        assert run_stage(path, stage.name) is ExitCode.DONE, (Path(plan.run_dir) / stage.name / "exit.json").read_text()
    trained = plan.stage("train_full" if pipeline == "full_sft" else "pretrain")
    manifest = read_manifest(Path(trained.output))
    assert manifest is not None
    assert manifest.kind == "mcore_checkpoint"
    assert manifest.metrics["iterations"] == 3
    assert [folder.name for folder in sorted(Path(trained.output).glob("iter_*"))] == ["iter_0000003"]
    exported = Path(plan.stage("export_hf").output) / "mg2hf"
    assert json.loads((exported / "config.json").read_text())["num_hidden_layers"] == 4
    assert (exported / "tokenizer.json").is_file()


def test_a_run_may_start_from_a_megatron_checkpoint_of_another_layout(pipeline_request):
    first = make_plan(pipeline_request, stages=PIPELINES["full_sft"], run_id="first")
    assert run_stage(save_plan(first), "convert_hf_to_mcore") is ExitCode.DONE
    made = first.stage("convert_hf_to_mcore").output
    other = {"tensor_model_parallel_size": 4, "pipeline_model_parallel_size": 1, "nproc_per_node": 4}
    second = make_plan({**pipeline_request, **other, "load": made}, stages=PIPELINES["full_sft"], run_id="second")
    assert run_stage(save_plan(second), "convert_hf_to_mcore") is ExitCode.DONE
    folder = Path(second.stage("convert_hf_to_mcore").output)
    assert sorted(rank.name for rank in folder.glob("iter_*/*")) == [f"mp_rank_{rank:02d}" for rank in range(4)]
    assert (folder / "latest_checkpointed_iteration.txt").is_file()
