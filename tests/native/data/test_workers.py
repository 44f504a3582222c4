"""Worker processes: the same bytes for any number of them, and none left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qwen3_ops.artifacts import read_manifest, sha256_file
from qwen3_ops.errors import Infrastructure
from qwen3_ops.native.data import readers, workers
from qwen3_ops.native.data.workers import processes

ALPACA = ["--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]


@pytest.fixture
def eager(monkeypatch):
    """As many processes as asked for, whatever the input's size and the cores; small batches."""
    monkeypatch.setattr(workers, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(workers, "cores", lambda: 16)
    monkeypatch.setattr(readers, "BATCH", 16)


def _left():
    """Children still there, but for Python's own tracker of semaphores, which ends with its parent."""
    return [child for child in psutil.Process().children() if not any("resource_tracker" in part for part in child.cmdline())]


def test_the_number_of_processes(monkeypatch, preprocess, write):
    class Flags:
        workers = 4

    monkeypatch.setattr(workers, "cores", lambda: 16)
    assert processes(Flags, size=1 << 40) == 4
    assert processes(Flags, size=1000) == 1
    monkeypatch.setattr(workers, "cores", lambda: 2)
    assert processes(Flags, size=1 << 40) == 1


def test_the_same_bytes_and_ledger_for_any_number(eager, preprocess, golden):
    made = []
    for count in ("1", "2", "3"):
        argv = ["--input", str(golden / "data/inputs/alpaca.parquet"), *ALPACA, "--seq-length", "256", "--workers", count]
        run = preprocess(argv)
        made.append(({path.name: sha256_file(path) for path in run.folder.iterdir()}, run.ledger()))
        assert not _left()
    assert made[0] == made[1] == made[2]


def _die(rows: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_infrastructure_error(eager, preprocess, golden, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "_encode", _die)
    with pytest.raises(Infrastructure, match="a worker process died"):
        preprocess(["--input", str(golden / "data/inputs/alpaca.parquet"), *ALPACA, "--workers", "2"])
    assert not _left()
    assert not list((tmp_path / "out").iterdir())


SLOW = """
import sys
from qwen3_ops.cli import main
from qwen3_ops.native.data import readers, workers
workers.WORTH_A_PROCESS, workers.cores, readers.BATCH = 1, lambda: 16, 8
if __name__ == "__main__":
    sys.argv = ["qwen3-ops", *sys.argv[1:]]
    main()
"""


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)])
def test_a_run_that_is_stopped_publishes_nothing_and_leaves_no_process(tmp_path, tokenizer_dir, write, count, number, status):
    script = write("slow.py", SLOW)
    record = json.dumps({"instruction": "i" * 100, "input": "", "output": "o" * 300}) + "\n"
    argv = [sys.executable, str(script), "preprocess-data", "--input", str(write("a.jsonl", record * 30_000)), *ALPACA]
    argv += ["--tokenizer-name-or-path", str(tokenizer_dir), "--output-prefix", str(tmp_path / "set/d"), "--workers", count]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(".set.*/*.bin")))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(timeout=30) == status
    _wait(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    assert len(children) >= (2 if count == "2" else 0)
    assert not (tmp_path / "set").exists()
    if number == signal.SIGTERM:
        assert not list(tmp_path.glob(".set*"))


def _wait(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6, 0.9, 1.2])
def test_a_run_killed_at_any_point_leaves_nothing_that_a_stage_would_accept(golden, tokenizer_dir, tmp_path, delay):
    argv = [sys.executable, "-m", "qwen3_ops", "preprocess-data", "--input", str(golden / "data/inputs/alpaca.parquet"), *ALPACA]
    argv += ["--tokenizer-name-or-path", str(tokenizer_dir), "--output-prefix", str(tmp_path / "set/d"), "--pack", "--seq-length", "512"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    folder = Path(tmp_path / "set")
    if not folder.exists():
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert {entry.path: entry.sha256 for entry in manifest.files} == {
        path.name: sha256_file(path) for path in folder.iterdir() if path.name != "manifest.json"
    }
