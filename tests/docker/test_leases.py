"""NPUs of one host: who gets which, on a real engine with device nodes."""

from __future__ import annotations

import json
import os

import pytest

from qwen3_airflow.ascend import leases
from qwen3_airflow.runtimes.base import Ended, NpusBusy
from waiting import wait_for

LOOKS = """
import glob, json, os, pathlib, time
seen = sorted(int(path[len("/dev/davinci"):]) for path in glob.glob("/dev/davinci[0-9]*"))
ports = {name: int(os.environ[name]) for name in ("MASTER_PORT", "HCCL_IF_BASE_PORT")}
print(json.dumps({"npus": seen, "ports": ports, "manager": os.path.exists("/dev/davinci_manager")}), flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def a3(profile, npu_nodes):
    control = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
    return profile.model_copy(update={"npus": 16, "dies_per_npu": 2, "control_devices": control})


def seen(runtime, handle) -> dict:
    return json.loads(wait_for("a line", lambda: runtime.logs(handle, 0), seconds=60))


def test_two_runs_share_a_host_and_a_third_waits(make_runtime, a3, job):
    runtime = make_runtime(a3)
    works = [job(LOOKS, name=f"train-{number}", npus=8) for number in range(3)]
    handles = [runtime.submit(work) for work in works[:2]]
    first, second = (seen(runtime, handle) for handle in handles)
    assert (first["npus"], second["npus"]) == (list(range(8)), list(range(8, 16)))
    assert set(first["ports"].values()).isdisjoint(second["ports"].values())
    assert first["manager"]
    with pytest.raises(NpusBusy, match="0 are free"):
        runtime.submit(works[2])
    assert make_runtime(a3).find(works[2]) is None, "nothing was created for it"
    (works[0].folder / "go").touch()
    wait_for("the end of the first", lambda: runtime.poll(handles[0]), seconds=60)
    third = runtime.submit(works[2])
    assert seen(runtime, third)["npus"] == list(range(8)), "an ended container holds nothing, removed or not"


def test_many_workers_at_once_get_different_devices(make_runtime, a3, job, root):
    children = []
    for number in range(6):
        work = job(LOOKS, name=f"train-{number}", npus=2)
        pid = os.fork()
        if pid == 0:
            try:
                make_runtime(a3).submit(work)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    runtime = make_runtime(a3)
    held = [seen(runtime, runtime.find(job(LOOKS, name=f"train-{number}")))["npus"] for number in range(6)]
    assert sorted(npu for npus in held for npu in npus) == list(range(12))
    assert all(npus[0] % 2 == 0 for npus in held), "the dies of a card go together"


def test_a_container_started_by_hand_holds_its_devices(make_runtime, a3, job, engine):
    client = engine.client
    device = {"PathOnHost": "/dev/davinci0", "PathInContainer": "/dev/davinci0", "CgroupPermissions": "rwm"}
    by_hand = client.create_container(a3.image, ["true"], host_config=client.create_host_config(devices=[device]))["Id"]
    try:
        assert 0 in leases.holders(make_runtime(a3).engine)
    finally:
        client.remove_container(by_hand)


def test_a_lock_whose_owner_died_is_broken(make_runtime, a3, job, engine, monkeypatch):
    engine.client.create_container_from_config({"Image": a3.image, "Cmd": ["never"]}, leases.LOCK)
    monkeypatch.setattr(leases, "_STALE", 1.0)
    runtime = make_runtime(a3)
    handle = runtime.submit(job("print(1)", npus=2))
    assert wait_for("the end", lambda: runtime.poll(handle), seconds=60) == Ended(exit_code=0)
    assert engine.client.containers(all=True, filters={"name": leases.LOCK}) == []


def test_only_leased_devices_can_be_opened(make_runtime, a3, job):
    code = """
import os
os.close(os.open("/dev/davinci0", os.O_RDWR))
os.mknod("/tmp/davinci5", 0o20600, os.makedev(1, 11))
try:
    os.open("/tmp/davinci5", os.O_RDWR)
except PermissionError:
    print("denied")
"""
    runtime = make_runtime(a3)
    handle = runtime.submit(job(code, npus=2))
    assert wait_for("the end", lambda: runtime.poll(handle), seconds=60) == Ended(exit_code=0)
    assert runtime.logs(handle, 0) == b"denied\n"
