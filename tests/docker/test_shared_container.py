"""All stages in one container: exec by exec, as crash-proof as a container each."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from docker.errors import APIError

from qwen3_airflow.ascend import shared_container
from qwen3_airflow.ascend.leases import holders
from qwen3_airflow.ascend.shared_container import StopContainer
from qwen3_airflow.runtimes import run_container
from qwen3_airflow.runtimes.base import Ended, NpusBusy
from qwen3_airflow.runtimes.engine import Engine, EngineAddress
from qwen3_airflow.runtimes.exec_stopper import stop as stop_exec
from qwen3_airflow.runtimes.run_container import shared_name, start
from qwen3_airflow.runtimes.shared import SharedContainerRuntime
from qwen3_ops.errors import BadInput
from waiting import wait_for

WAITS = """
import pathlib, time
with open("starts", "a") as file:
    file.write("x")
print("ready", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.02)
print("the last line")
"""


@pytest.fixture
def shared(engine, profile, job, root):
    """Makes runtimes on one running container, as other workers would."""
    address = EngineAddress(url=engine.url)
    whole = profile.model_copy(update={"container": "shared"})

    def make() -> SharedContainerRuntime:
        return SharedContainerRuntime(Engine(address.connect, address=address, patience=60), whole)

    setup = job("", name="start_container")
    name = start(make().engine, whole, setup)
    assert start(make().engine, whole, setup) == name, "a second setup finds the first"
    yield make
    make().engine.remove(name, force=True)


def end_of(runtime, handle, seconds: float = 60) -> Ended:
    return wait_for("the end of the stage", lambda: runtime.poll(handle), seconds=seconds)


def test_stages_follow_each_other_in_one_container(shared, job, engine):
    runtime = shared()
    for number, code in ((1, 0), (2, 3)):
        handle = runtime.submit(job(f"import sys; print({number}); sys.exit({code})", name=f"stage-{number}"))
        assert end_of(runtime, handle) == Ended(exit_code=code)
        assert runtime.logs(handle, 0) == f"{number}\n".encode()
        runtime.remove(handle)
        assert runtime.find(job("", name=f"stage-{number}")) is None


def test_another_worker_follows_and_does_not_double(shared, job):
    work = job(WAITS)
    first = shared().submit(work)
    other = shared()
    handle = other.find(work)
    assert handle == first
    assert other.submit(work) == first, "the lock lets no second attempt start"
    (work.folder / "go").touch()
    assert end_of(other, handle) == Ended(exit_code=0)
    assert (work.folder / "starts").read_text() == "x"
    assert other.logs(handle, 0) == b"ready\nthe last line\n"


def test_a_worker_that_died_before_the_exec_started_costs_nothing_but_time(shared, job, monkeypatch):
    runtime, work = shared(), job(WAITS)
    call = runtime.engine.call
    monkeypatch.setattr(
        runtime.engine, "call", lambda verb, *a, **k: pytest.fail("it dies") if verb == "exec_start" else call(verb, *a, **k)
    )
    with pytest.raises(pytest.fail.Exception):
        runtime.submit(work)
    monkeypatch.setattr("qwen3_airflow.runtimes.shared._START_SECONDS", 1.0)
    other = shared()
    time.sleep(1.5)
    assert other.find(work) is None
    monkeypatch.setattr("qwen3_airflow.runtimes.shared._START_SECONDS", 30.0)
    handle = other.submit(work)
    (work.folder / "go").touch()
    assert end_of(other, handle) == Ended(exit_code=0)


def test_dockerd_dies_and_forgets_its_execs(shared, job, engine):
    if not engine.may_be_killed:
        pytest.skip("this Docker Engine is not the tests' own: it is not killed")
    runtime, work = shared(), job(WAITS)
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    engine.kill()
    engine.start()
    assert runtime.poll(handle) is None
    assert shared().find(work) == handle
    (work.folder / "go").touch()
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert (work.folder / "starts").read_text() == "x"


def test_the_container_is_killed_and_the_next_try_has_another(shared, job, engine, root):
    runtime, work = shared(), job(WAITS)
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    engine.client.kill(handle.id.partition("/")[0])
    assert end_of(runtime, handle) == Ended(exit_code=None)
    runtime.remove(handle)
    again = shared().submit(work)
    (work.folder / "go").touch()
    assert end_of(runtime, again) == Ended(exit_code=0)
    assert (work.folder / "starts").read_text() == "xx"
    assert len(engine.containers(root)) == 1


def test_a_run_without_a_container_is_told_what_to_clear(shared, job):
    runtime, work = shared(), job(WAITS)
    (work.folder.parent / run_container.CONTAINER).unlink()
    runtime.engine.remove(shared_name(runtime.profile, work.folder.parent), force=True)
    with pytest.raises(BadInput, match=r"no running shared container.*Clear the task start_container"):
        runtime.submit(work)


def test_what_another_run_has_leased_meanwhile_is_waited_for(make_runtime, profile, npu_nodes, job, engine, root):
    a3 = profile.model_copy(update={"container": "shared", "npus": 16, "dies_per_npu": 2, "control_devices": ("/dev/davinci_manager",)})
    runtime = SharedContainerRuntime(make_runtime(a3).engine, a3)
    name = start(runtime.engine, a3, job("", name="start_container", npus=16))
    engine.client.kill(name)
    other = make_runtime(a3.model_copy(update={"container": "per_stage"}))
    held = other.submit(job("import time; time.sleep(600)", name="other", npus=8))
    with pytest.raises(NpusBusy, match="8 are free") as busy:
        runtime.submit(job(WAITS, name="prepare_dataset"))
    assert busy.value.wanted == 16, "the container's, not the stage's own"
    other.remove(held)
    handle = runtime.submit(job("print(1)", name="prepare_dataset"))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert engine.client.inspect_container(name)["Config"]["Labels"]["qwen3-ops.npus"] == ",".join(map(str, range(16)))


def test_a_container_that_can_not_start_keeps_no_npus(make_runtime, profile, npu_nodes, job, engine, root):
    a3 = profile.model_copy(update={"container": "shared", "npus": 16, "dies_per_npu": 2})
    runtime = make_runtime(a3)
    broken = {"HostConfig": {"Devices": []}, "Image": a3.image, "Entrypoint": ["/no/such/program"], "Labels": {"qwen3-ops.npus": "0,1"}}
    work = job("", name="start_container", npus=16)
    engine.client.create_container_from_config(broken, shared_name(a3, work.folder.parent))
    assert set(holders(runtime.engine)) == {0, 1}
    with pytest.raises(APIError, match="no such"):
        start(runtime.engine, a3, work)
    assert holders(runtime.engine) == {}


def test_the_teardown_lets_a_stage_save(shared, job, engine, root, monkeypatch):
    """As when a person marks the run failed: the task is over for Airflow, its process is not."""
    code = "import signal, sys, time; signal.signal(15, lambda *a: (time.sleep(2), print('saved', flush=True), sys.exit(130))); print('ready', flush=True); time.sleep(600)"
    runtime, work = shared(), job(code)
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    plan = SimpleNamespace(config=SimpleNamespace(runtime="docker"), run_dir=str(work.folder.parent))
    monkeypatch.setattr(shared_container, "load_plan", lambda path: plan)
    monkeypatch.setattr(shared_container, "plan_path", lambda *args: None)
    monkeypatch.setattr(shared_container, "get_runtime", lambda name, **kwargs: runtime)
    StopContainer.execute.__wrapped__(StopContainer(), {})
    assert runtime.logs(handle, 0) == b"ready\nsaved\n"
    assert json.loads((work.folder / "attempt.json").read_text())["exit_code"] == 130
    assert engine.containers(root) == []


def test_stop_lets_the_stage_save_and_leaves_the_container(shared, job, engine, root):
    code = "import signal, sys, time; signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(130))); print('ready', flush=True); time.sleep(600)"
    runtime, work = shared(), job(code)
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    runtime.stop(handle, grace=20)
    assert shared().find(work).stopping
    assert end_of(runtime, handle) == Ended(exit_code=130)
    assert runtime.logs(handle, 0) == b"ready\nsaved\n"
    assert len(engine.containers(root, all=False)) == 1


def test_stop_reaches_a_stage_in_a_container_whose_own_user_is_another(job, engine, make_runtime, profile, root):
    named = profile.model_copy(update={"container": "shared", "container_name": "qwen3-test-by-hand", "user": "0"})
    client = engine.client
    client.create_container(
        profile.image,
        ["/bin/sleep", "600"],
        name="qwen3-test-by-hand",
        user="12345",
        host_config=client.create_host_config(
            binds=[*(f"{path}:{path}:ro" for path in [*profile.driver_mounts, profile.package_dir]), f"{root}:{root}"]
        ),
    )
    try:
        client.start("qwen3-test-by-hand")
        runtime = SharedContainerRuntime(make_runtime(named).engine, named)
        handle = runtime.submit(job("import time; print('ready', flush=True); time.sleep(600)"))
        wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
        runtime.stop(handle, grace=60)
        assert end_of(runtime, handle, seconds=20) == Ended(exit_code=-15)
    finally:
        client.remove_container("qwen3-test-by-hand", force=True)


def test_stop_is_by_force_after_the_grace(shared, job):
    runtime = shared()
    work = job("import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)")
    handle = runtime.submit(work)
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=30)
    name = handle.id.partition("/")[0]
    stop_exec(runtime.engine, container=name, python=runtime.python, folder=work.folder, attempt=handle.attempt, grace=1)
    assert runtime.poll(handle) == Ended(exit_code=-9)


def test_stages_that_want_the_npus_take_turns(shared, job):
    runtime = shared()
    first, second = (job(WAITS, name=f"train-{number}", npus=8) for number in (1, 2))
    handles = [runtime.submit(first), runtime.submit(second)]
    wait_for("the first", lambda: (first.folder / "starts").exists() or (second.folder / "starts").exists(), seconds=30)
    time.sleep(1)
    assert (first.folder / "starts").exists() != (second.folder / "starts").exists()
    for work in (first, second):
        (work.folder / "go").touch()
    assert [end_of(runtime, handle) for handle in handles] == [Ended(exit_code=0)] * 2


def test_folders_behind_links_are_seen(make_runtime, profile, job, engine, root):
    """A model folder that is a link is mounted at its own name, from the place that it leads to."""
    (root / "disk" / "weights").mkdir(parents=True)
    (root / "disk" / "weights" / "config.json").write_text("{}")
    (root / "model").symlink_to(root / "disk" / "weights")
    (root / "out").mkdir()
    whole = profile.model_copy(update={"container": "shared"})
    runtime = SharedContainerRuntime(make_runtime(whole).engine, whole)

    def in_out(made):
        return type(made)(**{**vars(made), "folder": root / "out" / "run" / made.folder.name, "writes": (root / "out",)})

    start(runtime.engine, whole, in_out(job("", name="start_container", reads=(root / "model",))))
    handle = runtime.submit(in_out(job(f"print(open({str(root / 'model' / 'config.json')!r}).read())", reads=(root / "model",))))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert runtime.logs(handle, 0) == b"{}\n"


def test_a_container_that_the_user_has_must_see_the_runs_folders(shared, job, engine, profile, root, tmp_path_factory):
    runtime = shared()
    (root / "elsewhere").mkdir()
    named = profile.model_copy(update={"container": "shared", "container_name": "qwen3-test-by-hand"})
    client = engine.client
    client.create_container(
        profile.image,
        [profile.python, "-c", "import time; time.sleep(600)"],
        name="qwen3-test-by-hand",
        host_config=client.create_host_config(binds=[f"{path}:{path}:ro" for path in profile.driver_mounts]),
    )
    try:
        client.start("qwen3-test-by-hand")
        theirs = SharedContainerRuntime(runtime.engine, named)
        assert shared_name(named, root) == "qwen3-test-by-hand"
        with pytest.raises(BadInput, match="does not see a folder"):
            theirs.submit(job(WAITS, name="theirs"))
    finally:
        client.remove_container("qwen3-test-by-hand", force=True)


def test_arguments_pass_through_no_shell(shared, job):
    runtime, work = shared(), job("import json, sys; print(json.dumps(sys.argv[1:]))")
    hostile = ["$(touch pwned)", "; touch pwned", "--", "'"]
    handle = runtime.submit(type(work)(**{**vars(work), "argv": (*work.argv, *hostile)}))
    assert end_of(runtime, handle) == Ended(exit_code=0)
    assert json.loads(runtime.logs(handle, 0)) == hostile
