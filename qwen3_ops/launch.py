"""From a stage's flags to the processes that MindSpeed-LLM runs it with, one command a node."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from qwen3_ops.command import Command
from qwen3_ops.config import RunConfig
from qwen3_ops.stages.rendering import Rendered


def commands(run: RunConfig, rendered: Rendered) -> list[Command]:
    """What the mindspeed engine starts for one stage, the master's first."""
    program = rendered.script.program
    if program in ("posttrain_gpt.py", "pretrain_gpt.py", "inference.py", "evaluation.py"):
        return [_torchrun(run, program, rendered.argv, rank) for rank in range(run.nnodes)]
    launcher = ["python", program] if program.endswith(".py") else [program]
    return [Command(env=dict(rendered.script.env), cwd=run.mindspeed_dir, argv=[*launcher, *rendered.argv])]


def _torchrun(run: RunConfig, program: str, argv: Sequence[str], rank: int) -> Command:
    """``hosts[0]`` is the master, a host's place in the list its rank; the ranks differ in that and in their own address."""
    return Command(
        env=_device_env(run, rank),
        cwd=run.mindspeed_dir,
        argv=[
            "torchrun",
            *("--nproc_per_node", str(run.nproc_per_node)),
            *("--nnodes", str(run.nnodes)),
            *("--node_rank", str(rank)),
            *("--master_addr", run.hosts[0] if run.hosts else "localhost"),
            *("--master_port", str(run.master_port)),
            program,
            *argv,
        ],
    )


def _device_env(run: RunConfig, rank: int) -> dict[str, str]:
    """Variables of a stage on NPUs; sequence parallelism and asynchronous all-reduces need the first."""
    variables = {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_NPU_ALLOC_CONF": run.pytorch_npu_alloc_conf,
        "HCCL_CONNECT_TIMEOUT": run.hccl_connect_timeout,
        "HCCL_IF_BASE_PORT": run.hccl_if_base_port,
        "HCCL_SOCKET_IFNAME": run.socket_ifname,
        "GLOO_SOCKET_IFNAME": run.socket_ifname,
        "HCCL_IF_IP": _own_address(run, rank),
    }
    return {name: str(value) for name, value in variables.items() if value is not None}


def _own_address(run: RunConfig, rank: int) -> str | None:
    """Of a node among several, where ``hosts`` tells it; an interface that is named decides by itself. The runbook sets none."""
    if run.fidelity == "runbook" or run.nnodes == 1 or run.socket_ifname is not None or rank >= len(run.hosts):
        return None
    try:
        return str(ipaddress.ip_address(run.hosts[rank]))
    except ValueError:
        return None
