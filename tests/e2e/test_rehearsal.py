"""The mindspeed engine for real: torchrun, eight processes, the rehearsal's scripts in MindSpeed-LLM's place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3_ops.artifacts import Manifest, read_manifest
from qwen3_ops.errors import ExitCode
from qwen3_ops.events import read_events
from qwen3_ops.native.checkpoint.mcore import open_checkpoint
from qwen3_ops.pipelines import LORA_SFT
from qwen3_ops.plan import make_plan, save_plan
from qwen3_ops.procfs import with_variable
from qwen3_ops.run_stage import run_stage
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
BIN = Path(sys.executable).parent
STAGES = ("convert_hf_to_mcore", "prepare_dataset", "train_lora", "merge_lora", "generate", "mmlu_tuned", "export_hf")
ITERATIONS = 10
TWO_RANKS = {"engine": "mindspeed", "nproc_per_node": 2, "pipeline_model_parallel_size": 1}


@dataclass(frozen=True)
class Run:
    """A planned run; ``events`` of a stage are those of all its starts."""

    plan: Path

    def start(self, stage: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        folder = self.plan.parent / stage
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stage.log").open("ab") as log:
            return subprocess.Popen(
                [str(BIN / "qwen3-ops"), "run-stage", str(self.plan), stage, *arguments],
                env={
                    **os.environ,
                    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                    "QWEN3_OPS_LOGIN_SHELL": "",
                    "QWEN3_REHEARSAL_GLOO": "0",
                    "OMP_NUM_THREADS": "1",
                    **environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def make(self, stage: str, **environment: str) -> int:
        return self.start(stage, **environment).wait(timeout=300)

    def log(self, stage: str) -> str:
        return (self.plan.parent / stage / "stage.log").read_text(errors="replace")

    def output(self, stage: str) -> Path:
        (found,) = [planned for planned in json.loads(self.plan.read_text())["stages"] if planned["name"] == stage]
        return Path(found["output"])

    def manifest(self, stage: str) -> Manifest:
        manifest = read_manifest(self.output(stage))
        assert manifest is not None, self.log(stage)[-3000:]
        return manifest

    def events(self, stage: str, event: str) -> list[dict[str, Any]]:
        return [item for item in read_events(self.plan.parent / stage / "events.jsonl") if item["event"] == event]

    def curve(self, stage: str = "train_lora") -> dict[int, float]:
        return {item["step"]: item["lm_loss"] for item in self.events(stage, "metric") if "lm_loss" in item}


@pytest.fixture(scope="module")
def plan(tmp_path_factory, hf_model):
    def make(name, **fields) -> Run:
        root = tmp_path_factory.mktemp(name)
        request = {
            "recipe": "tiny",
            "model_dir": str(hf_model),
            "input": str(DATA / "data" / "inputs" / "alpaca.parquet"),
            "task_data_path": str(DATA / "train" / "mmlu" / "inputs" / "test"),
            "output_root": str(root),
            "train_iters": ITERATIONS,
            "save_interval": 4,
            "log_interval": 1,
            "micro_batch_size": 2,
            "global_batch_size": 2,
            "seq_length": 64,
            "max_new_tokens": 4,
            "max_eval_samples": 1,
            "mindspeed_dir": str(ROOT / "docker" / "rehearsal"),
            "master_port": 16015,
            **fields,
        }
        return Run(save_plan(make_plan(request, stages=LORA_SFT, run_id="r")))

    return make


@pytest.fixture(scope="module")
def rehearsal(plan) -> Run:
    """The whole LoRA pipeline through the mindspeed engine, TP2 PP4 on eight processes."""
    run = plan("rehearsal", engine="mindspeed", cpu_engine="mindspeed")
    for stage in STAGES:
        assert run.make(stage) == ExitCode.DONE, run.log(stage)[-3000:]
    return run


@pytest.fixture(scope="module")
def native(plan) -> Run:
    """The same through the native engine."""
    run = plan("native", engine="native", cpu_engine="native")
    for stage in STAGES:
        assert run_stage(run.plan, stage) == ExitCode.DONE
    return run


@pytest.fixture(scope="module")
def two_ranks(native, plan) -> Run:
    """The inputs of training on two processes."""
    run = base_of(native, plan("two-ranks", **TWO_RANKS), ("prepare_dataset",))
    assert run_stage(run.plan, "convert_hf_to_mcore") == ExitCode.DONE
    return run


def base_of(run: Run, other: Run, stages=("convert_hf_to_mcore", "prepare_dataset")) -> Run:
    """Give ``other`` the inputs of training that ``run`` made."""
    for stage in stages:
        shutil.copytree(run.output(stage), other.output(stage))
    return other


def checkpoint_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "mp_rank" in str(path) and path.is_file())


def test_checkpoints_have_the_native_engines_layout_keys_and_values(rehearsal, native):
    for stage in ("convert_hf_to_mcore", "train_lora", "merge_lora"):
        ours, theirs = rehearsal.output(stage), native.output(stage)
        assert checkpoint_files(ours) == checkpoint_files(theirs)
        assert len(checkpoint_files(ours)) == 8 * len(list(ours.glob("iter_*")))
        one, two = (open_checkpoint(folder) for folder in (ours, theirs))
        assert (one.layout, one.iteration, one.dtype, one.lora) == (two.layout, two.iteration, two.dtype, two.lora)
        left, right = (checkpoint.state(padded=True) for checkpoint in (one, two))
        assert list(left) == list(right)
        assert all(torch.equal(left[name], right[name]) for name in left), stage


def test_data_export_and_scores_equal_the_native_engines(rehearsal, native):
    data = [rehearsal.output("prepare_dataset"), native.output("prepare_dataset")]
    names = sorted(path.name for path in data[1].glob("*_document.*"))
    assert len(names) == 6
    assert all((data[0] / name).read_bytes() == (data[1] / name).read_bytes() for name in names)
    exports = [run.output("export_hf") / "mg2hf" for run in (rehearsal, native)]
    assert sorted(path.name for path in exports[0].iterdir()) == sorted(path.name for path in exports[1].iterdir())
    assert (exports[0] / "model.safetensors").read_bytes() == (exports[1] / "model.safetensors").read_bytes()
    assert not [path for path in rehearsal.output("export_hf").iterdir() if path.is_symlink()]
    ours, theirs = (run.manifest("mmlu_tuned").metrics for run in (rehearsal, native))
    assert {name: ours[name] for name in ("accuracy", "correct", "questions", "unanswered")} == {
        name: theirs[name] for name in ("accuracy", "correct", "questions", "unanswered")
    }
    assert rehearsal.manifest("prepare_dataset").metrics["documents"] == native.manifest("prepare_dataset").metrics["records"]
    texts = [json.loads((run.output("generate") / "generations.jsonl").read_text())["text"] for run in (rehearsal, native)]
    assert texts[0] == texts[1]


def test_manifests_tell_the_same_facts(rehearsal, native):
    for stage in ("convert_hf_to_mcore", "train_lora", "merge_lora", "export_hf", "mmlu_tuned", "generate"):
        ours, theirs = rehearsal.manifest(stage), native.manifest(stage)
        assert (ours.engine, theirs.engine) == ("mindspeed", "native")
        assert ours.kind == theirs.kind
        assert ours.facts == {name: theirs.facts.get(name) for name in ours.facts}, stage


def test_the_curve_is_read_from_the_log(rehearsal, native):
    ours, theirs = rehearsal.curve(), native.curve()
    assert sorted(ours) == sorted(theirs) == list(range(1, ITERATIONS + 1))
    assert ours == pytest.approx(theirs, rel=1e-6)
    metrics = rehearsal.manifest("train_lora").metrics
    assert (metrics["first_loss"], metrics["last_loss"]) == (ours[1], ours[ITERATIONS])
    assert rehearsal.events("train_lora", "progress")[-1]["done"] == ITERATIONS


def test_killed_and_stopped_in_the_middle_the_curve_is_the_same(rehearsal, plan):
    run = base_of(rehearsal, plan("resumed", engine="mindspeed", cpu_engine="mindspeed", keep_last=1))
    assert run.make("train_lora", QWEN3_REHEARSAL_FAIL="host-out-of-memory@6:3") == ExitCode.INFRASTRUCTURE
    assert run.events("train_lora", "diagnosis")[-1]["name"] == "host-out-of-memory"
    save = run.output("train_lora")
    half = save / "iter_0000005"  # as a save that was killed leaves it
    shutil.copytree(save / "iter_0000004" / "mp_rank_00_000", half / "mp_rank_00_000")

    started = run.start("train_lora", QWEN3_REHEARSAL_SLOW="0.2")
    wait_for("iteration 7", lambda: 7 in run.curve(), seconds=120)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=120) == ExitCode.INTERRUPTED
    assert "s to save and to end" in run.log("train_lora")
    assert not half.exists()

    assert run.make("train_lora") == ExitCode.DONE, run.log("train_lora")[-3000:]
    assert run.curve() == rehearsal.curve()
    assert run.manifest("train_lora").metrics["first_loss"] == rehearsal.curve()[1]
    assert [path.name for path in save.glob("iter_*")] == [f"iter_{ITERATIONS:07d}"]
    left, right = (open_checkpoint(folder).state() for folder in (save, rehearsal.output("train_lora")))
    assert all(torch.equal(left[name], right[name]) for name in right)

    (save / "manifest.json").unlink()  # killed between the last save and the manifest
    assert run.make("train_lora") == ExitCode.DONE
    assert "all 10 iterations are done already" in run.log("train_lora")
    assert run.manifest("train_lora").metrics["last_loss"] == rehearsal.curve()[ITERATIONS]


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ("npu-out-of-memory@2:1", ExitCode.BAD_INPUT, "a retry changes nothing"),
        ("hccl-socket-timeout@2:0", ExitCode.INFRASTRUCTURE, "the next try may succeed"),
        ("nan-iterations@2:-1", ExitCode.QUALITY_GATE, "a retry changes nothing"),
        ("optimizer-missing", ExitCode.BAD_INPUT, "exit status 0"),
        ("no-output@2", ExitCode.INFRASTRUCTURE, "nothing was printed for"),
    ],
)
def test_failures_under_torchrun(two_ranks, plan, failure, code, said):
    run = base_of(two_ranks, plan("failing", **TWO_RANKS))
    silence = {"QWEN3_OPS_SILENCE_SECONDS": "15"} if failure.startswith("no-output") else {}
    assert run.make("train_lora", QWEN3_REHEARSAL_FAIL=failure, **silence) == code, run.log("train_lora")[-3000:]
    event = run.events("train_lora", "diagnosis")[-1]
    assert (event["name"], event["exit_code"]) == (failure.partition("@")[0], code)
    assert said in run.log("train_lora")
    assert not with_variable("QWEN3_OPS_ENGINE_PROCESS", str(run.plan.parent / "train_lora" / "engine.log"))


def test_two_hosts_share_their_fate_and_publish_once(native, plan):
    """One run-stage a host, over gloo; the second host's rank fails, both start again."""
    run = plan(
        "hosts", engine="mindspeed", nnodes=2, nproc_per_node=1, tensor_model_parallel_size=1, pipeline_model_parallel_size=2,
        hosts=["10.0.0.1", "10.0.0.2"], socket_ifname="lo",
    )  # fmt: skip
    run.plan.write_text(run.plan.read_text().replace("10.0.0.1", "127.0.0.1").replace("10.0.0.2", "127.0.0.2"))  # both are here
    base_of(native, run, ("prepare_dataset",))
    assert run_stage(run.plan, "convert_hf_to_mcore") == ExitCode.DONE
    gloo = {"QWEN3_REHEARSAL_GLOO": "1"}
    fail = {**gloo, "QWEN3_REHEARSAL_FAIL": "hccl-notify-timeout@6:1"}
    first, second = (run.start("train_lora", "--node-rank", str(rank), **fail) for rank in (0, 1))
    assert (second.wait(timeout=200), first.wait(timeout=60)) == (ExitCode.INFRASTRUCTURE, ExitCode.INFRASTRUCTURE)
    assert "node 1 failed, so this one was stopped" in run.log("train_lora")
    assert read_manifest(run.output("train_lora")) is None

    first, second = (run.start("train_lora", "--node-rank", str(rank), **gloo) for rank in (0, 1))
    assert (second.wait(timeout=200), first.wait(timeout=60)) == (ExitCode.DONE, ExitCode.DONE), run.log("train_lora")[-3000:]
    assert "going on from iteration 4" in run.log("train_lora")
    metrics = run.manifest("train_lora").metrics
    assert (metrics["first_loss"], metrics["last_loss"]) == pytest.approx((native.curve()[1], native.curve()[ITERATIONS]), rel=1e-6)
    assert sorted(path.name for path in (run.output("train_lora") / "iter_0000010").glob("mp_rank_*")) == [
        "mp_rank_00_000",
        "mp_rank_00_001",
    ]
