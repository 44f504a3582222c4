"""A Docker Engine that listens on TCP and takes clients with a certificate only, by the connection's three files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_server import free_ports
from certificates import Authority
from engine import TestEngine, import_skeleton
from qwen3_airflow.ascend.hook import AscendHook
from qwen3_airflow.runtimes import get_runtime
from qwen3_airflow.runtimes.base import Ended, RuntimeUnavailable
from qwen3_ops.procfs import with_variable
from waiting import wait_for

STARTED_HERE = "QWEN3_OPS_TEST_TLS"
SCRIPT = str(Path(__file__).resolve().parents[2] / "scripts" / "test-engine")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours", "ours")


@pytest.fixture(scope="module")
def url(engine: TestEngine, authority: Authority):
    """Of a second engine, beside the tests' own."""
    if not engine.may_be_killed:
        pytest.skip("this Docker Engine is not the tests' own: none is started beside it")
    folder = tempfile.mkdtemp(prefix="qwen3-ops-tls-")  # short: it holds sockets
    (port,) = free_ports(1)
    certificate, key = authority.server()
    flags = f"--host=tcp://127.0.0.1:{port} --tlsverify --tlscacert={authority.certificate} --tlscert={certificate} --tlskey={key}"
    environment = {**os.environ, "R": folder, "DOCKERD_FLAGS": flags}
    subprocess.run([SCRIPT, "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
    import_skeleton(TestEngine(f"unix://{folder}/docker.sock").client)
    yield f"tcp://127.0.0.1:{port}"
    subprocess.run([SCRIPT, "stop"], env=environment, check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def connect(monkeypatch, url, profile):
    """Makes the connection `ascend_default` of the engine."""

    def connect(**files: str) -> AscendHook:
        extra = {"recipe": "cpu", "profile": profile.model_dump(exclude_defaults=True, mode="json"), **files}
        found = SimpleNamespace(host=url, port=None, extra_dejson=extra)
        monkeypatch.setattr(AscendHook, "get_connection", classmethod(lambda cls, conn_id: found))
        return AscendHook()

    return connect


def files_of(authority: Authority) -> dict[str, str]:
    certificate, key = authority.client()
    return {"tls_ca_cert": authority.certificate, "tls_client_cert": certificate, "tls_client_key": key}


def test_a_stage_runs_there_and_is_stopped(connect, authority, job, monkeypatch, tmp_path):
    """Also by the process that keeps the grace, which knows no Airflow: it is given the files' names. The machine's own authorities do not count."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", Authority(tmp_path / "others", "others").certificate)
    monkeypatch.setenv(STARTED_HERE, str(tmp_path))
    connect(**files_of(authority))
    runtime = get_runtime("docker", ascend_conn_id="ascend_default", patience=30)
    code = "import signal, sys, time; signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(130))); print('ready', flush=True); time.sleep(600)"
    handle = runtime.submit(job(code))
    wait_for("a line", lambda: runtime.logs(handle, 0), seconds=60)
    runtime.stop(handle, grace=30)
    assert wait_for("the end", lambda: runtime.poll(handle), seconds=60) == Ended(exit_code=130)
    assert runtime.logs(handle, 0) == b"ready\nsaved\n"
    runtime.remove(handle)
    assert runtime.find(job(code)) is None
    wait_for(
        "the stopper's end", lambda: not with_variable(STARTED_HERE, str(tmp_path)), seconds=60
    )  # else it would wait for an engine that is gone


@pytest.mark.parametrize("wrong", ["no files", "another authority's client", "another authority's server"])
def test_no_one_else_is_let_in_or_believed(connect, authority, tmp_path, wrong):
    ours, others = files_of(authority), files_of(Authority(tmp_path / "others", "others"))
    files = {
        "no files": {},
        "another authority's client": {**others, "tls_ca_cert": ours["tls_ca_cert"]},
        "another authority's server": {**ours, "tls_ca_cert": others["tls_ca_cert"]},
    }[wrong]
    hook = connect(**files)
    with pytest.raises(RuntimeUnavailable, match=r"the Docker Engine at tcp://127\.0\.0\.1:\d+ does not answer"):
        hook.get_conn()
