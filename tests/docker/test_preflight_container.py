"""The preflight where the stages run: in a container with leased nodes and a stand-in for npu-smi."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from qwen3_airflow.runtimes.base import Job
from qwen3_airflow.runtimes.run_container import start
from qwen3_airflow.runtimes.shared import SharedContainerRuntime
from qwen3_ops.errors import ExitCode, Infrastructure
from qwen3_ops.pipelines import LORA_SFT
from qwen3_ops.plan import make_plan, save_plan
from qwen3_ops.recipes import tiny
from waiting import wait_for


@pytest.fixture
def plan(root, hf_model, golden):
    """Of a run on MindSpeed-LLM, which no rule has seen: only its devices matter here."""
    tasks = root / "mmlu"
    tasks.mkdir()
    (tasks / "anatomy_test.csv").write_text("q,a,b,c,d,A\n")
    request = {
        "recipe": tiny().recipe, "model_dir": str(hf_model), "input": str(golden / "data" / "inputs" / "alpaca_small.json"),
        "task_data_path": str(tasks), "output_root": str(root),
    }  # fmt: skip
    made = make_plan(request, stages=LORA_SFT, run_id="r")
    stages = [stage.model_copy(update={"engine": "mindspeed"}) for stage in made.stages]
    return save_plan(made.model_copy(update={"stages": stages}))


def test_an_image_that_is_nowhere_is_a_finding_before_anything_starts(make_runtime, profile, engine, root):
    """The engine's own words: the name can not be resolved or is refused, as this machine's network has it."""
    runtime = make_runtime(profile.model_copy(update={"image": "127.0.0.1:9/no/such:image"}))
    with pytest.raises(Infrastructure, match=r"registry does not answer: 127.0.0.1:9/no/such:image: .*docker load") as away:
        runtime.examine()
    assert engine.url in str(away.value)
    with pytest.raises(Infrastructure):
        runtime.submit(Job(folder=root / "preflight", argv=("true",), writes=(root,)))
    assert engine.containers(root) == []


def test_an_image_of_this_machine_is_no_finding(make_runtime, profile):
    assert make_runtime(profile).examine() == []


@pytest.mark.parametrize("container", ["per_stage", "shared"])
def test_it_sees_the_leased_devices_and_misses_cann(make_runtime, profile, plan, root, npu_nodes, npu_smi, container):
    ascend = profile.model_copy(
        update={
            "container": container,
            "npus": 16,
            "dies_per_npu": 2,
            "control_devices": ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"),
            "driver_mounts": (*profile.driver_mounts, str(npu_smi)),
            "environment": {"PATH": f"{npu_smi}:/usr/bin:/bin"},
        }
    )
    runtime = make_runtime(ascend)
    job = Job(folder=root / "r" / "preflight", argv=(sys.executable, "-m", "qwen3_ops", "preflight", str(plan)), writes=(root,), npus=8)
    if container == "shared":
        start(runtime.engine, ascend, replace(job, folder=root / "r" / "start_container"))
        runtime = SharedContainerRuntime(runtime.engine, ascend)
    handle = runtime.submit(job)
    ended = wait_for("the end", lambda: runtime.poll(handle), seconds=120)
    said = runtime.logs(handle, 0).decode()
    assert ended.exit_code == ExitCode.BAD_INPUT, said
    assert "cann: not found" in said
    assert "preflight: devices: 0, 1, 2, 3, 4, 5, 6, 7" in said
    assert "devices must be" not in said, "eight idle, healthy devices are there"
