from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from npu_smi_tables import A3
from qwen3_ops.npu_smi import Chip, NpuInfo
from qwen3_ops.pipelines import LORA_SFT
from qwen3_ops.plan import make_plan, save_plan
from qwen3_ops.preflight import RUNBOOK, Machine, describe, examine, look, needs_npus
from qwen3_ops.recipes import tiny


def chip(device: int, **values) -> Chip:
    whole = {
        "npu": device // 2,
        "chip": device % 2,
        "device": device,
        "name": "Ascend910",
        "health": "OK",
        "hbm_used": 2891,
        "hbm_total": 65536,
    }
    return Chip(**{**whole, **values})


def machine(*chips: Chip, **values) -> Machine:
    chips = chips or tuple(chip(device) for device in range(16))
    whole = {
        "npus": NpuInfo(version="25.0.rc1", chips=chips),
        "npu_error": None,
        "visible": tuple(range(8)),
        "versions": dict(RUNBOOK),
        "free_disk": 1 << 40,
        "taken_ports": (),
    }
    return Machine(**{**whole, **values})


def test_the_runbooks_machine_has_no_finding():
    assert examine(tiny(), machine(), needs_npus=True) == []


@pytest.mark.parametrize(
    ("found", "severity", "words"),
    [
        (machine(visible=(0, 1)), "refuse", ["nproc_per_node = 8", "0, 1"]),
        (machine(chip(1, health="Alarm")), "refuse", ["NPU 0 chip 1 (davinci1): Alarm"]),
        (machine(chip(1, health="Warning")), "warn", ["Warning"]),
        (machine(chip(2, processes=(4711,))), "refuse", ["processes 4711"]),
        (machine(chip(2, hbm_used=58000)), "refuse", ["58000 of 65536 MB"]),
        (machine(npus=None, npu_error="npu-smi is not installed"), "warn", ["not installed"]),
        (machine(npus=None, npu_error="dcmi module initialize failed. ret is -8005"), "refuse", ["-8005"]),
        (machine(versions={**RUNBOOK, "torch_npu": "2.7.1"}), "refuse", ["torch 2.6.0, torch_npu 2.7.1"]),
        (machine(versions={**RUNBOOK, "cann": "8.2.RC1"}), "warn", ["cann 8.2.RC1, runbook 8.1.rc1"]),
        (machine(versions={name: value for name, value in RUNBOOK.items() if name != "cann"}), "refuse", ["cann: not found"]),
        (machine(free_disk=1 << 30), "warn", ["1.0 GiB"]),
        (machine(taken_ports=(6015,)), "refuse", ["6015"]),
    ],
)
def test_what_is_wrong_is_found(found, severity, words):
    findings = examine(tiny(), found, needs_npus=True)
    assert severity in {finding.severity for finding in findings}
    told = "\n".join(map(str, findings))
    assert [word for word in words if word not in told] == []


def test_busy_devices_of_others_are_no_finding():
    assert examine(tiny(), machine(chip(0), chip(12, processes=(1,))), needs_npus=True) == []


def test_without_npus_only_the_disk_counts(tmp_path):
    run = tiny().model_copy(update={"output_root": str(tmp_path)})
    found = look(run, needs_npus=False)
    assert (found.npus, found.visible, found.versions, found.taken_ports) == (None, (), {}, ())
    assert "no stage of this run needs an NPU" in describe(run, found, needs_npus=False)[-1]
    assert examine(run, replace(found, free_disk=1 << 40), needs_npus=False) == []
    (finding,) = examine(run, replace(found, free_disk=1), needs_npus=False)
    assert (finding.rule, finding.severity) == ("output_root should have room", "warn")


@pytest.fixture
def saved(tmp_path, hf_model, golden):
    tasks = tmp_path / "mmlu"
    tasks.mkdir()
    (tasks / "anatomy_test.csv").write_text("q,a,b,c,d,A\n")
    (tmp_path / "outputs").mkdir()
    request = {
        "recipe": "tiny",
        "model_dir": str(hf_model),
        "input": str(golden / "data" / "inputs" / "alpaca_small.json"),
        "task_data_path": str(tasks),
        "output_root": str(tmp_path / "outputs"),
    }
    return lambda **more: make_plan({**request, **more}, stages=LORA_SFT, run_id="r")


def test_the_native_engine_needs_no_npus(saved):
    assert not needs_npus(saved())


def on_npus(plan):
    """The plan as if its stages were MindSpeed-LLM's, which no rule has seen."""
    return plan.model_copy(update={"stages": [stage.model_copy(update={"engine": "mindspeed"}) for stage in plan.stages]})


def test_results_that_stand_need_no_npus(saved):
    plan = on_npus(saved())
    assert needs_npus(plan)
    assert not needs_npus(plan.model_copy(update={"stages": [stage.model_copy(update={"reused": True}) for stage in plan.stages]}))


def preflight(plan, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "qwen3_ops", "preflight", str(save_plan(plan))],
        env={**os.environ, "QWEN3_OPS_LOGIN_SHELL": "", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_run_without_npus_passes_and_is_told_what_was_looked_at(saved):
    with socket.socket() as taken:  # a port that only torchrun would want
        taken.bind(("", 0))
        taken.listen()
        done = preflight(saved(), MASTER_PORT=str(taken.getsockname()[1]))
    assert done.returncode == 0, done.stderr
    assert "GiB free below" in done.stdout
    assert "no stage of this run needs an NPU" in done.stdout


def test_the_command_says_what_it_found_and_ends_as_bad_input(saved):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = preflight(on_npus(saved()), MASTER_PORT=port)
    assert done.returncode == 2
    assert "The preflight refuses this run" in done.stderr
    assert f"taken: {port}" in done.stderr
    assert "cann: not found" in done.stderr


def test_a_stand_in_for_npu_smi_is_asked(tmp_path, monkeypatch):
    (tmp_path / "npu-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{A3}\nEND\n")
    (tmp_path / "npu-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("QWEN3_OPS_LOGIN_SHELL", "")
    found = look(tiny().model_copy(update={"output_root": str(tmp_path)}), needs_npus=True)
    assert found.versions["driver"] == "25.0.rc1.1"
    assert len(found.npus.chips) == 4


def test_versions_are_those_of_the_python_that_mindspeed_runs_with(tmp_path, monkeypatch):
    """A worker's own Python need not have torch at all."""
    (tmp_path / "python").write_text("""#!/bin/sh\necho '{"python": "3.10.2", "torch": "2.6.0"}'\n""")
    (tmp_path / "python").chmod(0o755)
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nexport PATH="' + str(tmp_path) + ':$PATH"\nenv -0 >"$QWEN3_OPS_ENVIRONMENT"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("QWEN3_OPS_LOGIN_SHELL", str(shell))
    found = look(tiny().model_copy(update={"output_root": str(tmp_path)}), needs_npus=True)
    assert (found.versions["python"], found.versions["torch"]) == ("3.10.2", "2.6.0")


@pytest.mark.parametrize(
    ("said", "versions"),
    [('echo "a plugin greets"; echo \'{"python": "3.10.2"}\'', {"python": "3.10.2"}), ("echo no JSON", {}), ("exit 1", {})],
)
def test_a_python_that_says_something_else_ends_no_preflight(tmp_path, monkeypatch, said, versions):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{said}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("QWEN3_OPS_LOGIN_SHELL", "")
    found = look(tiny().model_copy(update={"output_root": str(tmp_path)}), needs_npus=True)
    assert {name: version for name, version in found.versions.items() if name == "python"} == versions


def test_odd_bytes_of_npu_smi_end_no_preflight(tmp_path, monkeypatch):
    (tmp_path / "npu-smi").write_bytes(b"#!/bin/sh\nprintf '\\377\\n'\n")
    (tmp_path / "npu-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("QWEN3_OPS_LOGIN_SHELL", "")
    assert look(tiny().model_copy(update={"output_root": str(tmp_path)}), needs_npus=True).npus is None
