"""What the container of a run is asked for, without an engine."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from qwen3_airflow.ascend.leases import Lease
from qwen3_airflow.ascend.recipes import ascend_a3, cpu
from qwen3_airflow.runtimes import run_container
from qwen3_airflow.runtimes.base import Job
from qwen3_airflow.runtimes.run_container import CONTAINER, port_bindings, shared_name, start


@pytest.mark.parametrize(
    ("npus", "bindings"), [(range(8), {3000: ("127.0.0.1", 50000)}), (range(8, 16), {3000: ("127.0.0.1", 50008)}), ((), {})]
)
def test_two_runs_of_a_host_have_different_ports(npus, bindings):
    assert port_bindings(ascend_a3(), Lease(npus=tuple(npus))) == bindings


def test_a_host_without_npus_has_its_ports_as_they_are():
    assert port_bindings(cpu().model_copy(update={"ports": {3000: 50000}}), Lease()) == {3000: ("127.0.0.1", 50000)}


def test_each_run_has_a_container_of_its_own_and_a_named_one_is_everyones(tmp_path):
    profile = ascend_a3().model_copy(update={"container": "shared"})
    assert shared_name(profile, tmp_path / "a") != shared_name(profile, tmp_path / "b")
    assert shared_name(profile.model_copy(update={"container_name": "by-hand"}), tmp_path) == "by-hand"


def test_what_it_was_asked_for_is_kept_whole(tmp_path):
    job = Job(
        folder=tmp_path / "start_container", argv=("a", "b"), labels={"dag": "d"}, reads=(tmp_path / "model",), writes=(tmp_path,),
        npus=8, multi_node=True, stop_grace=7.0,
    )  # fmt: skip
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_nothing_is_made_that_no_later_stage_could_make_again(tmp_path, monkeypatch):
    """A setup that fails after it has made the container leaves it with its NPUs: its teardown does not run."""
    made = []
    engine = SimpleNamespace(inspect=lambda name: None, call=lambda verb, name: made.append(verb))
    monkeypatch.setattr(run_container, "_create", lambda *args: made.append("create"))
    (tmp_path / "run" / CONTAINER).mkdir(parents=True)  # it can not be written
    with pytest.raises(OSError, match=CONTAINER):
        start(engine, cpu(), Job(folder=tmp_path / "run" / "start_container", argv=()))
    assert made == []
