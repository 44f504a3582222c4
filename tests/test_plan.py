from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3_ops.findings import PlanRefused
from qwen3_ops.pipelines import LORA_SFT, StageRequest
from qwen3_ops.plan import load_plan, make_plan, safe_name, save_plan


@pytest.fixture
def request_body(hf_model, golden, tmp_path):
    """A request that no rule refuses."""
    tasks = tmp_path / "mmlu" / "test"
    tasks.mkdir(parents=True)
    (tasks / "miscellaneous_test.csv").write_text("q,a,b,c,d,A\n")
    return {
        "recipe": "tiny",
        "model_dir": str(hf_model),
        "input": str(golden / "data" / "inputs" / "alpaca.parquet"),
        "task_data_path": str(tasks),
        "output_root": str(tmp_path / "out"),
    }


def plan(body, **changes):
    return make_plan({**body, **changes}, stages=LORA_SFT, run_id="r")


def refused(body, **changes):
    with pytest.raises(PlanRefused) as error:
        plan(body, **changes)
    return error.value


def test_a_good_run_is_rendered_and_nothing_is_written(request_body, tmp_path):
    made = plan(request_body)
    assert [stage.name for stage in made.stages] == [request.name for request in LORA_SFT]
    train = made.stage("train_lora")
    assert train.inputs["checkpoint"].path == made.stage("convert_hf_to_mcore").output
    assert train.argv[train.argv.index("--load") + 1] == made.stage("convert_hf_to_mcore").output
    assert train.argv[train.argv.index("--num-query-groups") + 1] == "4"
    assert not (tmp_path / "out").exists()


def test_a_plan_can_be_kept_and_read_again(request_body):
    made = plan(request_body)
    assert load_plan(save_plan(made)) == made


def test_tensor_parallel_3_is_refused_with_field_rule_and_values(request_body):
    said = str(refused(request_body, tensor_model_parallel_size=3))
    assert "tensor_model_parallel_size: num_query_groups (num_key_value_heads) must be divisible by tensor_model_parallel_size" in said
    assert "num_query_groups (num_key_value_heads) = 4, tensor_model_parallel_size = 3" in said
    assert "8 * 1 = 8 devices; 3 * 4 * 1 = 12" in said


def test_every_finding_is_told_at_once(request_body):
    error = refused(
        request_body,
        tensor_model_parallel_size=3,
        train_iters="many",
        lerning_rate=1,
        input="/no/such/file",
        min_lr=1.0,
        seq_length=100_000,
    )
    fields = {field for finding in error.findings for field in finding.fields}
    assert {"tensor_model_parallel_size", "train_iters", "lerning_rate", "input", "min_lr", "seq_length"} <= fields
    assert "9 findings" in str(error) or len(error.findings) >= 6


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size", "did you mean tensor_model_parallel_size?"),
        ({"train_iters": -1}, "train_iters", "greater than or equal to 1"),
        ({"lora_target_modules": ["q_proj"]}, "lora_target_modules", "linear_qkv"),
        ({"pipeline_model_parallel_size": 8}, "pipeline_model_parallel_size", "num_layers = 4, pipeline_model_parallel_size = 8"),
        ({"nproc_per_node": 4}, "nproc_per_node", "4 devices"),
        ({"global_batch_size": 12}, "global_batch_size", "choose a multiple of"),
        ({"context_parallel_size": 2, "nproc_per_node": 16}, "context_parallel_size", "whole sequences"),
        ({"model_dir": "/no/such/model"}, "model_dir", "does not exist"),
        ({"model_dir": "relative"}, "model_dir", "not absolute"),
        ({"task_data_path": "/tmp"}, "task_data_path", "_test.csv"),
        ({"prompt_type": "no-such-template"}, "prompt_type", "known template"),
        ({"engine": "nemo"}, "engine", "native"),
        ({"recipe": "huge"}, "recipe", "choose one of"),
    ],
)
def test_a_mistake_is_refused(request_body, changes, field, said):
    error = refused(request_body, **changes)
    assert any(field in finding.fields and said in str(finding) for finding in error.findings), str(error)


def test_results_beside_the_base_weights_are_refused(request_body):
    error = refused(request_body, output_root=f"{request_body['model_dir']}/out")
    assert "outside model_dir" in str(error)


def test_a_tokenizer_without_the_templates_tokens_is_refused(request_body, hf_model, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(hf_model, folder)
    for name in ("tokenizer.json", "added_tokens.json", "vocab.json"):
        text = (folder / name).read_text() if (folder / name).exists() else None
        if text is not None:
            (folder / name).write_text(text.replace("<|im_end|>", "<|other|>"))
    error = refused(request_body, model_dir=str(folder))
    assert "<|im_end|>" in str(error)


def test_saving_only_at_the_end_is_a_warning(request_body):
    made = plan(request_body, save_interval=200, train_iters=100)
    assert [finding.severity for finding in made.findings] == ["warn"]


def mindspeed(tmp_path):
    """A folder that looks like MindSpeed-LLM's."""
    folder = tmp_path / "MindSpeed-LLM"
    folder.mkdir(exist_ok=True)
    for name in ("posttrain_gpt.py", "preprocess_data.py"):
        (folder / name).touch()
    return {"mindspeed_dir": str(folder)}


def test_the_engine_is_chosen_by_stage(request_body, tmp_path):
    made = plan(request_body, engine="mindspeed", nnodes=2, hosts=["10.0.0.1", "10.0.0.2"], global_batch_size=32, **mindspeed(tmp_path))
    assert {stage.name for stage in made.stages if stage.engine == "mindspeed"} == {"train_lora", "generate", "mmlu_base", "mmlu_tuned"}
    assert made.stage("convert_hf_to_mcore").commands == []
    train = made.stage("train_lora")
    for rank, command in enumerate(train.commands):
        at = command.argv.index("posttrain_gpt.py")
        assert command.argv[:at] == [
            *("torchrun", "--nproc_per_node", "8", "--nnodes", "2", "--node_rank", str(rank)),
            *("--master_addr", "10.0.0.1", "--master_port", "6015"),
        ]
        assert command.argv[at + 1 :] == train.argv
        assert command.env["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"


def keys(made):
    return {stage.name: stage.key for stage in made.stages}


def test_keys_change_exactly_downstream_of_what_changed(request_body):
    base = keys(plan(request_body))

    def changed(**changes):
        return {name for name, key in keys(plan(request_body, **changes)).items() if key != base[name]}

    assert changed() == set()
    assert changed(workers=3, log_interval=7, save_interval=9, output_root=request_body["output_root"] + "2") == set()
    assert changed(train_iters=7) == {"train_lora", "merge_lora", "export_hf", "generate", "mmlu_tuned"}
    assert changed(max_new_tokens=7) == {"generate"}
    assert changed(max_eval_samples=1) == {"mmlu_base", "mmlu_tuned"}
    assert changed(tensor_model_parallel_size=1, pipeline_model_parallel_size=2, nproc_per_node=2) == set(base) - {"prepare_dataset"}


def test_keys_follow_the_content_of_the_inputs(request_body, tmp_path):
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(Path(request_body["input"]).read_bytes())
    base = keys(plan(request_body, input=str(copy)))
    copy.write_bytes((Path(request_body["input"]).parent / "pretrain.parquet").read_bytes())
    after = keys(plan(request_body, input=str(copy)))
    assert after["convert_hf_to_mcore"] == base["convert_hf_to_mcore"]
    assert after["prepare_dataset"] != base["prepare_dataset"]
    assert after["train_lora"] != base["train_lora"]


@pytest.mark.parametrize(
    "requests",
    [
        [StageRequest(name="x", stage="no_such_stage")],
        [StageRequest(name="x", stage="generate")],
        [StageRequest(name="x", stage="generate", inputs={"checkpoint": "later"})],
        [StageRequest(name="d", stage="prepare_dataset"), StageRequest(name="x", stage="generate", inputs={"checkpoint": "d"})],
    ],
)
def test_a_pipeline_that_can_not_flow_is_refused(request_body, requests):
    with pytest.raises(Exception, match=r"unknown stage|wants the inputs|no earlier stage|must be a mcore_checkpoint"):
        make_plan(request_body, stages=requests, run_id="r")


def test_run_ids_become_folder_names():
    assert safe_name("manual__2026-11-24T09:00:00+00:00") == "manual__2026-11-24T09_00_00_00_00"
    assert safe_name("../..") == "_"


def test_the_plan_is_json_for_programs(request_body):
    assert json.loads(plan(request_body).model_dump_json())["config"]["recipe"] == "tiny"
