"""Every recipe plans: nothing refused, every stage rendered, by the engine it is for."""

from __future__ import annotations

import json

import pytest

from qwen3_ops.pipelines import PIPELINES
from qwen3_ops.plan import make_plan
from qwen3_ops.recipes import FITS, name_of

from .conftest import RELEASED

OF_KIND = {"lora": "lora_sft", "full": "full_sft", "pretrain": "pretrain"}


@pytest.fixture(autouse=True)
def endless_disk(monkeypatch):
    from qwen3_ops.rules import capacity

    class Usage:
        free = 10**15

    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda place: Usage)


def planned(machine, size, kind, **changes):
    (machine.model / "config.json").write_text(json.dumps(RELEASED[f"Qwen3-{size}"]))
    nnodes = FITS[size][kind].nnodes
    several = {"hosts": [f"10.0.0.{node + 1}" for node in range(nnodes)], "socket_ifname": "eth0"} if nnodes > 1 else {}
    request = machine.request(OF_KIND[kind], **several, **changes) | {"recipe": name_of(size, kind)}
    return make_plan(request, stages=PIPELINES[OF_KIND[kind]], run_id="r")


@pytest.mark.parametrize("kind", OF_KIND)
@pytest.mark.parametrize("size", FITS)
@pytest.mark.parametrize("version", ["2.1.0", "26.0.0"])
def test_on_npus(machine, size, kind, version):
    plan = planned(machine, size, kind, cpu_engine="mindspeed", mindspeed_version=version)
    model = RELEASED[f"Qwen3-{size}"]
    assert {len(stage.commands) for stage in plan.stages if stage.verb == "train"} == {FITS[size][kind].nnodes}
    for stage in plan.stages:
        for command in stage.commands:
            assert command.argv[-len(stage.argv) :] == stage.argv
            assert not any("{" in token for token in command.argv)
        if "--num-layers" in stage.argv:
            assert stage.argv[stage.argv.index("--num-layers") + 1] == str(model["num_hidden_layers"])
            assert ("--num-experts" in stage.argv) == ("num_experts" in model)
    assert plan.forecast is not None
    assert plan.forecast.device_memory is not None
    assert plan.forecast.device_memory.total < 128 * 1024**3


@pytest.mark.parametrize("kind", OF_KIND)
@pytest.mark.parametrize("size", [size for size in FITS if size != "30B-A3B"])
def test_by_the_native_engine(machine, size, kind):
    """Its flags parse what is rendered: make_plan would raise."""
    plan = planned(machine, size, kind, engine="native")
    assert all(stage.commands == [] for stage in plan.stages)
    assert plan.forecast is not None
    assert plan.forecast.device_memory is None
