"""Host profiles by name: typed functions, as the recipes of runs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwen3_airflow.ascend.profile import HostProfile

_DRIVER = ("/usr/local/Ascend/driver", "/usr/local/Ascend/firmware", "/usr/local/Ascend/add-ons", "/usr/local/sbin", "/usr/bin/hccn_tool")
_CANN = ("/usr/local/Ascend/ascend-toolkit/set_env.sh", "/usr/local/Ascend/nnal/atb/set_env.sh")


def ascend_a3() -> HostProfile:
    """Runbook section 2: eight cards of two dies, its mounts and its image, without its ``--privileged``."""
    return HostProfile(
        image="registry-cn-guian.midea.com/aios/a3_llm_release:v2.1.2",
        npus=16,
        dies_per_npu=2,
        driver_mounts=_DRIVER,
        data_roots=("/apps",),
        python="/root/miniconda3/envs/py310/bin/python",
        env_scripts=_CANN,
        user="root",
        ports={3000: 50000},
    )


def ascend_a2() -> HostProfile:
    """Eight cards of one die each."""
    return ascend_a3().model_copy(update={"npus": 8, "dies_per_npu": 1})


def cpu() -> HostProfile:
    """A host without NPUs and the image of ``docker/Dockerfile.cpu``."""
    return HostProfile(image="qwen3-ops:cpu", data_roots=("/apps",), control_devices=())


HOST_RECIPES: Mapping[str, Callable[[], HostProfile]] = {"ascend-a3": ascend_a3, "ascend-a2": ascend_a2, "cpu": cpu}
DEFAULT_HOST_RECIPE = "ascend-a3"
