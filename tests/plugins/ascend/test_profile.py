from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection
from pydantic import ValidationError

from qwen3_airflow.ascend.hook import AscendHook, profile_from
from qwen3_airflow.ascend.profile import HostProfile
from qwen3_airflow.ascend.recipes import HOST_RECIPES, ascend_a3
from qwen3_airflow.provider import get_provider_info
from qwen3_ops.errors import BadInput


def hook(monkeypatch, **connection) -> AscendHook:
    extra = json.dumps(connection.pop("extra", {}))
    found = Connection(conn_id="ascend_default", conn_type="ascend", extra=extra, **connection)
    monkeypatch.setattr(AscendHook, "get_connection", classmethod(lambda cls, conn_id: found))
    return AscendHook()


def test_the_runbooks_container_is_a_recipe():
    profile = ascend_a3()
    assert (profile.npus, profile.dies_per_npu, profile.ipc_mode) == (16, 2, "host")
    assert not profile.privileged, "the devices are handed in one by one"
    assert "/usr/bin/hccn_tool" in profile.driver_mounts
    assert profile.ports == {3000: 50000}


def test_a_connection_overrides_a_recipe(monkeypatch):
    extra = {
        "recipe": "ascend-a2",
        "image": "site/ascend:1",
        "data_roots": ["/data"],
        "profile": {"shm_size": "64g", "ipc_mode": "private"},
    }
    profile = hook(monkeypatch, host="unix:///run/d.sock", extra=extra).profile()
    assert (profile.npus, profile.image, profile.data_roots, profile.shm_size) == (8, "site/ascend:1", ("/data",), "64g")


def test_the_profile_may_be_text_as_a_form_sends_it():
    assert profile_from({"recipe": "cpu", "profile": '{"python": "/opt/py"}'}, source="test").python == "/opt/py"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"recipe": "a4"}, "ascend-a3, ascend-a2, cpu"),
        ({"profile": {"devicse": 3}}, "devicse"),
        ({"profile": "{"}, "no JSON object"),
        ({"data_roots": ["/"]}, "not the root"),
        ({"data_roots": ["/data/../etc"]}, "'..'"),
        ({"data_roots": ["data"]}, "absolute"),
        ({"profile": {"npus": 3}}, "dies_per_npu"),
        ({"profile": {"shm_size": "8g"}}, "ipc_mode"),
    ],
)
def test_a_wrong_profile_says_where_and_what(extra, words):
    with pytest.raises(BadInput, match="connection c") as refusal:
        profile_from(extra, source="connection c")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        ({"host": "tcp://npu-1:2376"}, "tcp://npu-1:2376"),
        ({"host": "ssh://ops@npu-1"}, "ssh://ops@npu-1"),
        ({"host": "/run/docker.sock"}, "unix:///run/docker.sock"),
        ({"host": "npu-1", "port": 2376}, "tcp://npu-1:2376"),
        ({"host": "tcp://npu-1", "port": 2376}, "tcp://npu-1:2376"),
        ({"host": "tcp://npu-1:2376", "port": 2375}, "tcp://npu-1:2376"),
        ({"host": "tcp://npu-1"}, "tcp://npu-1:2375"),
        ({"host": "ssh://ops@npu-1", "port": 2222}, "ssh://ops@npu-1:2222"),
        ({"host": "unix:///run/docker.sock", "port": 2375}, "unix:///run/docker.sock"),
        ({}, "unix:///var/run/docker.sock"),
    ],
)
def test_where_the_engine_is(monkeypatch, connection, url):
    assert hook(monkeypatch, **connection).address().url == url


def test_a_certificate_that_is_missing_does_not_mean_no_tls(monkeypatch):
    extra = {"tls_ca_cert": "/c/ca.pem", "tls_client_cert": "/c/cert.pem", "tls_client_key": ""}
    with pytest.raises(BadInput, match=r"tls_client_key.*connection ascend_default"):
        hook(monkeypatch, host="tcp://npu-1:2376", extra=extra).address()


def test_roots_are_compared_by_folders_not_by_letters(tmp_path):
    profile = HostProfile(image="i", data_roots=(str(tmp_path / "data"),), read_only_roots=(str(tmp_path / "weights"),))
    assert profile.may_write(str(tmp_path / "data" / "x"))
    assert not profile.may_write(str(tmp_path / "database"))
    assert profile.may_read(str(tmp_path / "weights"))
    assert not profile.may_write(str(tmp_path / "weights"))


def test_profiles_do_not_change():
    with pytest.raises(ValidationError):
        ascend_a3().npus = 3


def test_the_form_offers_what_a_connection_may_hold():
    (form,) = get_provider_info()["connection-types"]
    assert form["conn-fields"]["recipe"]["schema"]["enum"][:-1] == list(HOST_RECIPES)
    assert form["hook-class-name"] == f"{AscendHook.__module__}.{AscendHook.__name__}"
