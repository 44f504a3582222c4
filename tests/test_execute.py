"""How artifacts come to be: a small verb of the tests' own stands in for the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from qwen3_ops import execute
from qwen3_ops import run_stage as stages
from qwen3_ops.artifacts import read_manifest
from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput, ExitCode, QualityGate
from qwen3_ops.events import Events, read_events
from qwen3_ops.execute import Provenance, run_verb
from qwen3_ops.model import ModelSpec
from qwen3_ops.plan import Plan, StagePlan, save_plan
from qwen3_ops.recipes import tiny
from qwen3_ops.run_stage import run_stage
from qwen3_ops.verbs import Verb

FLAGS = """
from __future__ import annotations
from pathlib import Path
from qwen3_ops.flags import Flags

class FLAGS(Flags):
    INERT = {"--fused": 0}
    save_dir: Path
    load: Path | None = None
    lora_load: Path | None = None
    finetune: bool = False
    how: str = "well"
"""
VERB = """
from __future__ import annotations
import errno, os, time
from qwen3_ops.errors import QualityGate
from qwen3_ops.verbs import Outcome

def run(flags, ctx):
    folder = flags.save_dir
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "made").open("a") as file:
        file.write("x")
    if flags.how == "badly":
        raise QualityGate("not good enough", value=0.1)
    if flags.how == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if flags.how == "crash":
        raise ZeroDivisionError("a defect")
    if flags.how == "slow":
        (folder / "started").write_text("")
        time.sleep(60)
    return Outcome(kind="mcore_checkpoint", facts={"tp": 2}, metrics={"resumed": str(flags.load), "finetune": flags.finetune})
"""


@pytest.fixture
def verb(tmp_path, monkeypatch):
    package = tmp_path / "lib" / f"fake_{tmp_path.name}"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("flags", FLAGS), ("verb", VERB)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    made = Verb(name="fake", script="fake.py", summary="", package=package.name, output_flag="--save-dir")
    monkeypatch.setattr(stages, "VERBS", {"fake": made})
    return made


def plan_with(tmp_path, argv, *, output=None, key="k1", in_place=False):
    output = output or tmp_path / "out" / "artifacts" / "convert_hf_to_mcore" / key
    model = ModelSpec(
        model_type="qwen3", num_layers=4, hidden_size=64, ffn_hidden_size=128, num_attention_heads=8, num_query_groups=4, kv_channels=16,
        padded_vocab_size=512, rotary_base=1000000, norm_epsilon=1e-6, max_position_embeddings=512,
        untie_embeddings_and_output_weights=True, params_dtype="bf16",
    )  # fmt: skip
    stage = StagePlan(
        name="task", stage="convert_hf_to_mcore", title="Title", section="3.1", verb="fake", engine="native",
        argv=["--save-dir", str(output), *argv], key=key, inputs={}, output=str(output), kind="mcore_checkpoint", reused=False,
    )  # fmt: skip
    plan = Plan(
        run_id="r", run_dir=str(tmp_path / "out" / "runs" / "r"), created_at="now", config=RunConfig(**tiny().model_dump()), model=model,
        findings=[], stages=[stage],
    )  # fmt: skip
    return save_plan(plan), output


def exit_file(plan):
    return json.loads((plan.parent / "task" / "exit.json").read_text())


def run(verb, argv, **values):
    return run_verb(verb, argv, events=Events(), provenance=Provenance(stage="s", key="k", **values))


def test_a_verb_by_hand_publishes_its_folder_with_a_manifest(verb, tmp_path, capsys):
    manifest = run(verb, ["--save-dir", str(tmp_path / "a"), "--fused"])
    assert read_manifest(tmp_path / "a") == manifest
    assert [file.path for file in manifest.files] == ["made"]
    assert manifest.facts == {"tp": 2}
    assert manifest.argv == ["--save-dir", str(tmp_path / "a"), "--fused"]
    assert "without effect on this engine: --fused" in capsys.readouterr().out


def test_a_verb_by_hand_overwrites_nothing(verb, tmp_path):
    run(verb, ["--save-dir", str(tmp_path / "a")])
    with pytest.raises(BadInput, match="exists already"):
        run(verb, ["--save-dir", str(tmp_path / "a")])
    assert (tmp_path / "a" / "made").read_text() == "x"


def test_a_failed_verb_leaves_nothing(verb, tmp_path):
    with pytest.raises(QualityGate):
        run(verb, ["--save-dir", str(tmp_path / "a"), "--how", "badly"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lib"]


def test_a_stage_is_made_once(verb, tmp_path):
    plan, output = plan_with(tmp_path, [])
    assert run_stage(plan, "task") == ExitCode.DONE
    assert run_stage(plan, "task") == ExitCode.DONE
    assert (output / "made").read_text() == "x"
    manifest = read_manifest(output)
    assert (manifest.key, manifest.config["recipe"]) == ("k1", "tiny")
    assert (plan.parent / "task" / "artifact").resolve() == output
    assert exit_file(plan) == {"exit_code": 0, "error": None}
    assert any(event.get("reused") for event in read_events(plan.parent / "task" / "events.jsonl"))


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("badly", ExitCode.QUALITY_GATE, "not good enough: 0.1"),
        ("full", ExitCode.INFRASTRUCTURE, "disk is full"),
        ("crash", ExitCode.UNEXPECTED, "unexpected ZeroDivisionError: a defect"),
    ],
)
def test_how_a_stage_ended_is_told_and_nothing_is_published(verb, tmp_path, how, code, said):
    plan, output = plan_with(tmp_path, ["--how", how])
    assert run_stage(plan, "task") == code
    assert exit_file(plan)["exit_code"] == code
    assert said in exit_file(plan)["error"]
    assert not output.exists()
    assert not list(output.parent.glob("*.tmp")) + list(output.parent.glob(".*.tmp"))


def test_a_wrong_flag_is_bad_input(verb, tmp_path):
    plan, _ = plan_with(tmp_path, ["--nonsense"])
    assert run_stage(plan, "task") == ExitCode.BAD_INPUT


def test_what_a_killed_start_left_is_removed(verb, tmp_path):
    plan, output = plan_with(tmp_path, [])
    leftover = output.parent / f".{output.name}.abcd.tmp"
    leftover.mkdir(parents=True)
    assert run_stage(plan, "task") == ExitCode.DONE
    assert not leftover.exists()


def test_two_starts_at_once_make_one_artifact(verb, tmp_path):
    plan, output = plan_with(tmp_path, [])
    command = [sys.executable, "-c", STARTER, str(tmp_path / "lib"), verb.package, str(plan)]
    starts = [subprocess.Popen(command) for _ in range(3)]
    assert [start.wait(timeout=60) for start in starts] == [0, 0, 0]
    assert (output / "made").read_text() == "x"


def test_sigterm_interrupts_and_leaves_no_temporary_folder(verb, tmp_path):
    plan, output = plan_with(tmp_path, ["--how", "slow"])
    start = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "lib"), verb.package, str(plan)])
    deadline = time.monotonic() + 30
    while not list(output.parent.glob(f".{output.name}.*.tmp/started")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(start.pid, signal.SIGTERM)
    assert start.wait(timeout=30) == ExitCode.INTERRUPTED
    assert exit_file(plan)["error"].startswith("stopped by SIGTERM")
    assert not list(output.parent.glob("*.tmp")) + list(output.parent.glob(".*.tmp"))


def test_an_unfinished_training_goes_on(verb, tmp_path, monkeypatch):
    in_place = Verb(name="fake", script="fake.py", summary="", package=verb.package, output_flag="--save-dir", in_place=True)
    monkeypatch.setattr(stages, "VERBS", {"fake": in_place})
    plan, output = plan_with(tmp_path, ["--load", "/base", "--finetune"])
    output.mkdir(parents=True)
    (output / stages.TRACKER).write_text("7")
    assert run_stage(plan, "task") == ExitCode.DONE
    assert read_manifest(output).metrics == {"resumed": str(output), "finetune": False}


def test_an_input_that_is_not_finished_is_refused(verb, tmp_path):
    plan, _ = plan_with(tmp_path, [])
    text = json.loads(plan.read_text())
    text["stages"][0] |= {"stage": "generate", "inputs": {"checkpoint": {"path": str(tmp_path / "none"), "key": "k"}}}
    plan.write_text(json.dumps(text))
    assert run_stage(plan, "task") == ExitCode.BAD_INPUT
    assert "no finished artifact" in exit_file(plan)["error"]


def test_signals_are_handled_as_before_afterwards(verb):
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    with execute.interruptible():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


STARTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from qwen3_ops import run_stage as stages
from qwen3_ops.verbs import Verb
stages.VERBS = {"fake": Verb(name="fake", script="fake.py", summary="", package=sys.argv[2], output_flag="--save-dir")}
sys.exit(int(stages.run_stage(Path(sys.argv[3]), "task")))
"""


def test_a_finished_artifact_is_taken_without_its_lock(verb, tmp_path, monkeypatch):
    """Another user made it: its lock can not be opened for writing."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    plan, _ = plan_with(tmp_path, [])
    with monkeypatch.context() as patch:
        patch.setattr(stages, "FileLock", refuse)
        assert run_stage(plan, "task") == ExitCode.BAD_INPUT
        assert "can not be written" in exit_file(plan)["error"]
    assert run_stage(plan, "task") == ExitCode.DONE
    monkeypatch.setattr(stages, "FileLock", refuse)
    assert run_stage(plan, "task") == ExitCode.DONE
