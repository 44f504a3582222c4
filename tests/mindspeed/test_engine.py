"""The engine as a stage calls it, with small programs in MindSpeed-LLM's place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time

import pytest

from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput, ExitCode, Interrupted
from qwen3_ops.events import Events
from qwen3_ops.mindspeed import engine, shards
from qwen3_ops.mindspeed.judge import EngineFailed
from qwen3_ops.model import released
from qwen3_ops.plan import Plan, StagePlan
from qwen3_ops.recipes import tiny
from qwen3_ops.verbs import Context
from stand_ins import LINE, python, write_ranks

KINDS = {"train": "lora_checkpoint", "convert-ckpt": "mcore_checkpoint", "generate": "generation"}
LOADED = "  successfully loaded checkpoint from /base [ t 0, p 0 ] at iteration 0"


@pytest.fixture
def interpret(tmp_path, monkeypatch):
    """Runs one stage's program on the first of ``hosts`` hosts."""
    monkeypatch.setenv("QWEN3_OPS_LOGIN_SHELL", "")
    monkeypatch.setattr(engine, "_OTHERS_SECONDS", 0.0)
    output, side = tmp_path / "out", tmp_path / "side"
    output.mkdir()
    side.mkdir()

    def run(verb, script, *, hosts=1, pipeline=1, **fields):
        flags = ["--load", "/base", "--save", str(output), "--train-iters", "2", "--pipeline-model-parallel-size", str(pipeline)]
        command = python(script)
        stage = StagePlan(
            name="task", stage="s", title="Title", section="1", verb=verb, engine="mindspeed", argv=flags, key="k", inputs={},
            output=str(output), kind=KINDS[verb], reused=False,
            commands=[command.model_copy(update={"argv": [*command.argv, "--nproc_per_node", "1", *flags]})] * hosts,
        )  # fmt: skip
        plan = Plan(
            run_id="r", run_dir=str(tmp_path), created_at="now", config=RunConfig(**{**tiny().model_dump(), **fields}),
            model=released("Qwen3-14B"), findings=[], stages=[stage],
        )  # fmt: skip
        context = Context(events=Events(tmp_path / "events.jsonl"), output=output, side=side)
        return engine.interpreter(plan, stage, node_rank=0 if hosts > 1 else None)(flags, context)

    return run


def training(output, *iterations):
    lines = [LOADED, *(line for number in iterations for line in _saved(output, number)), "[after training is done] datetime: x"]
    return f"print({chr(10).join(lines)!r}, flush=True)"


def _saved(output, number):
    return LINE.format(number, 2, "1.0"), f"  successfully saved checkpoint from iteration {number:7d} to {output}"


def test_a_checkpoint_that_can_not_be_removed_is_no_reason_to_stop_training(interpret, tmp_path, monkeypatch, capsys):
    def busy(path, **how):
        raise OSError(39, "Directory not empty", str(path))

    for number in (1, 2):
        write_ranks(tmp_path / "made", number, tp=1, pp=1)
    monkeypatch.setattr(shards, "shutil", type("Busy", (), {"rmtree": staticmethod(busy)}))
    script = f"import shutil; shutil.copytree({str(tmp_path / 'made')!r}, {str(tmp_path / 'out')!r}, dirs_exist_ok=True)\n"
    assert interpret("train", script + training(tmp_path / "out", 1, 2), keep_last=1).facts["iteration"] == 2
    assert "could not be removed" in capsys.readouterr().err


def test_the_time_of_a_training_that_logs_seldom(interpret, tmp_path):
    write_ranks(tmp_path / "made", 2, tp=1, pp=1)
    script = f"import shutil; shutil.copytree({str(tmp_path / 'made')!r}, {str(tmp_path / 'out')!r}, dirs_exist_ok=True)\n"
    assert interpret("train", script + training(tmp_path / "out", 2)).metrics["seconds"] == pytest.approx(0.2)


def test_the_other_hosts_are_told_of_a_failure_that_is_not_the_tools(interpret, tmp_path):
    (tmp_path / "side" / "node0.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        interpret("train", "print('x')", hosts=2)
    told = json.loads((tmp_path / "side" / "nodes" / "node0.json").read_text())
    assert (told["state"], told["exit_code"]) == ("failed", ExitCode.INFRASTRUCTURE)


def test_a_generation_on_several_hosts_has_the_signs_of_one(interpret, tmp_path):
    with pytest.raises(EngineFailed, match="text after"):
        interpret("generate", f"print({LOADED!r})", hosts=2)


def test_parts_on_disks_that_are_not_shared_are_kept_and_to_be_gathered(interpret, tmp_path):
    output, made = tmp_path / "out", tmp_path / "made"
    write_ranks(made, 2, tp=1, pp=2, leave_out="mp_rank_00_001")
    shutil.rmtree(made / "iter_0000002" / "mp_rank_00_001")
    script = f"import shutil; shutil.copytree({str(made)!r}, {str(output)!r}, dirs_exist_ok=True)\n" + training(output, 2)
    apart = {"hosts": 2, "pipeline": 2, "no_shared_storage": True}
    with pytest.raises(BadInput, match="gather-ckpt"):
        interpret("train", script, **apart)
    with pytest.raises(BadInput, match="only its own part"):
        interpret("train", script, **apart)
    assert (output / "iter_0000002" / "mp_rank_00_000").is_dir()
    write_ranks(tmp_path / "other", 2, tp=1, pp=2)
    shutil.copytree(tmp_path / "other" / "iter_0000002" / "mp_rank_00_001", output / "iter_0000002" / "mp_rank_00_001")
    assert interpret("train", script, **apart).facts["iteration"] == 2


def test_a_conversion_has_nothing_to_save_and_ends_soon(interpret, tmp_path, monkeypatch):
    """SIGTERM reaches the saver alone, whereupon the loader waits for it for ever."""
    monkeypatch.setattr(engine, "_ENDING", 0.5)
    log = tmp_path / "side" / "engine.log"

    def send():
        while not (log.exists() and b"Starting saver" in log.read_bytes()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('Starting saver...', flush=True); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(Interrupted):
        interpret("convert-ckpt", script)
    sender.join()
    assert time.monotonic() - started < 20
