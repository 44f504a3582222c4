"""What the engine is asked to create, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3_airflow.ascend.leases import Lease
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.ascend.recipes import ascend_a3
from qwen3_airflow.runtimes import container
from qwen3_airflow.runtimes.base import Job
from qwen3_ops.errors import BadInput

LEASE = Lease(npus=(2, 3), ports={"MASTER_PORT": 6017})


@pytest.fixture
def profile(tmp_path):
    return ascend_a3().model_copy(update={"driver_mounts": (), "data_roots": (str(tmp_path),)})


def job(folder: Path, **values) -> Job:
    return Job(**{"folder": folder / "runs" / "r" / "train", "argv": ("python", "-m", "x"), "npus": 2, **values})


def test_the_runbooks_devices_are_handed_in_one_by_one(profile, tmp_path):
    options = container.host_options(job(tmp_path), profile, LEASE)
    assert [device["PathOnHost"] for device in options["devices"]] == [
        "/dev/davinci2",
        "/dev/davinci3",
        "/dev/davinci_manager",
        "/dev/devmm_svm",
        "/dev/hisi_hdc",
    ]
    assert (options["privileged"], options["ipc_mode"], options["network_mode"]) == (False, "host", "none")
    assert options["security_opt"] == ["no-new-privileges"]


def test_a_stage_without_npus_gets_no_device_and_no_privilege(profile, tmp_path):
    options = container.host_options(job(tmp_path, npus=0), profile.model_copy(update={"privileged": True}), Lease())
    assert (options["devices"], options["privileged"]) == ([], False)


def test_the_ascend_docker_runtime_is_told_by_a_variable(profile, tmp_path):
    runtime = profile.model_copy(update={"device_mode": "ascend-docker-runtime"})
    options = container.host_options(job(tmp_path), runtime, LEASE)
    assert (options["devices"], options["runtime"]) == ([], "ascend")
    assert container.environment(job(tmp_path), runtime, LEASE, image={})["ASCEND_VISIBLE_DEVICES"] == "2,3"


def test_only_runs_on_several_nodes_have_a_network(profile, tmp_path):
    single, several = job(tmp_path), job(tmp_path, multi_node=True)
    assert container.network_mode(several, profile) == "host"
    assert container.environment(single, profile, LEASE, image={})["HCCL_SOCKET_IFNAME"] == "lo"
    assert "HCCL_SOCKET_IFNAME" not in container.environment(several, profile, LEASE, image={})


def test_the_images_python_path_is_kept_behind_our_package(profile, tmp_path):
    mounted = profile.model_copy(update={"package_dir": "/opt/qwen3-ops"})
    variables = container.environment(job(tmp_path), mounted, LEASE, image={"PYTHONPATH": "/usr/local/Ascend/python"})
    assert variables["PYTHONPATH"] == "/opt/qwen3-ops:/usr/local/Ascend/python"


def test_inputs_are_read_only_also_below_what_may_be_written(profile, tmp_path):
    weights = tmp_path / "outputs" / "weights"
    weights.mkdir(parents=True)
    found = {bind.target: bind.read_only for bind in container.binds(job(tmp_path, reads=(weights,), writes=(weights.parent,)), profile)}
    assert found == {str(weights): True, str(weights.parent): False}


@pytest.mark.parametrize("path", ["/etc", "/var/run/docker.sock", "/", "/root"])
def test_a_run_can_not_mount_what_is_not_the_profiles(profile, tmp_path, path):
    with pytest.raises(BadInput, match=r"lets no run|no such folder"):
        container.binds(job(tmp_path, reads=(Path(path),)), profile)
    with pytest.raises(BadInput, match=r"lets no run|no such folder"):
        container.binds(job(tmp_path, writes=(Path(path),)), profile)


def test_a_read_only_root_can_not_be_written(tmp_path):
    profile = HostProfile(image="i", read_only_roots=(str(tmp_path),))
    container.binds(job(tmp_path, reads=(tmp_path,)), profile)
    with pytest.raises(BadInput, match="lets no run write"):
        container.binds(job(tmp_path, writes=(tmp_path,)), profile)


def test_names_are_the_jobs_not_the_tries(tmp_path):
    first, again = job(tmp_path, labels={"try": "1"}), job(tmp_path, labels={"try": "2"})
    assert container.container_name(first) == container.container_name(again)
    assert container.container_name(first) != container.container_name(job(tmp_path / "other"))
    assert container.labels(again, LEASE, attempt="a", log_start=7)["qwen3-ops.try"] == "2"
