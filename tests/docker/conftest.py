"""One Docker Engine for the session: DOCKER_HOST's or the default socket's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import SKELETON, TestEngine, engine_url, import_skeleton, package_dir, system_mounts
from npu_smi_tables import a3_table
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.runtimes.base import Job
from qwen3_airflow.runtimes.docker import DockerRuntime
from qwen3_airflow.runtimes.engine import Engine, EngineAddress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def engine() -> TestEngine:
    url = engine_url()
    if url is None:
        if os.environ.get("CI"):
            pytest.fail("no Docker Engine answers; .ci/run starts one")
        pytest.skip("no Docker Engine answers at DOCKER_HOST or the default socket")
    found = TestEngine(url)
    import_skeleton(found.client)
    return found


@pytest.fixture
def root(tmp_path: Path, engine: TestEngine) -> Iterator[Path]:
    """A folder that runs may write to; its containers are gone afterwards."""
    yield tmp_path
    engine.remove_all(tmp_path)


@pytest.fixture
def profile(root: Path) -> HostProfile:
    return HostProfile(
        image=SKELETON,
        driver_mounts=tuple(system_mounts()),
        package_dir=package_dir(),
        data_roots=(str(root),),
        python=sys.executable,
        control_devices=(),
    )


@pytest.fixture
def make_runtime(engine: TestEngine) -> Callable[[HostProfile], DockerRuntime]:
    """As another worker would make it: nothing is shared but the engine."""

    def make(profile: HostProfile) -> DockerRuntime:
        address = EngineAddress(url=engine.url)
        return DockerRuntime(Engine(address.connect, address=address, patience=60), profile)

    return make


@pytest.fixture
def job(root: Path) -> Callable[..., Job]:
    def make(code: str, *, name: str = "train_lora", **more) -> Job:
        """A stage whose work is a line of Python."""
        return Job(folder=root / "run" / name, argv=(sys.executable, "-u", "-c", code), writes=(root,), **more)

    return make


@pytest.fixture(scope="session")
def npu_nodes() -> Iterator[None]:
    """/dev/davinci0 to 15 and the control devices as nodes that answer like /dev/null."""
    if os.geteuid() != 0:
        pytest.skip("device nodes are made by root only")
    names = [*(f"davinci{number}" for number in range(16)), "davinci_manager", "devmm_svm", "hisi_hdc"]
    made = [Path("/dev", name) for name in names if not Path("/dev", name).exists()]
    for path in made:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    yield
    for path in made:
        path.unlink()


@pytest.fixture(scope="session")
def npu_smi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for npu-smi that knows an A3 with 16 idle dies."""
    tool = tmp_path_factory.mktemp("npu-smi") / "npu-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{a3_table(16)}\nEND\n")
    tool.chmod(0o755)
    return tool.parent


@pytest.fixture
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the host that no profile names."""
    folder = tmp_path_factory.mktemp("other")
    yield folder
    shutil.rmtree(folder)
