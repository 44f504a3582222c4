"""From a stage's flags to the processes that MindSpeed-LLM runs it with, one command a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen3_ops.command import Command
from qwen3_ops.config import RunConfig
from qwen3_ops.verbs import Verb


def commands(run: RunConfig, verb: Verb, argv: Sequence[str]) -> list[Command]:
    """What the mindspeed engine starts for one stage."""
    if verb.on_devices:
        return on_devices(run, script=verb.script, argv=argv, env=device_env(run))
    return on_host(run, script=verb.script, argv=argv, env={"CUDA_DEVICE_MAX_CONNECTIONS": "1"})


def on_host(run: RunConfig, *, script: str, argv: Sequence[str], env: Mapping[str, str]) -> list[Command]:
    """One process that needs no device: conversion and data preparation."""
    return [Command(env=dict(env), cwd=run.mindspeed_dir, argv=["python", script, *argv])]


def on_devices(run: RunConfig, *, script: str, argv: Sequence[str], env: Mapping[str, str]) -> list[Command]:
    """``torchrun`` on every node: ``hosts[0]`` is the master, a host's place in the list its rank."""
    master = run.hosts[0] if run.hosts else "localhost"
    return [
        Command(
            env=dict(env),
            cwd=run.mindspeed_dir,
            argv=[
                "torchrun",
                *("--nproc_per_node", str(run.nproc_per_node)),
                *("--nnodes", str(run.nnodes)),
                *("--node_rank", str(rank)),
                *("--master_addr", master),
                *("--master_port", str(run.master_port)),
                script,
                *argv,
            ],
        )
        for rank in range(run.nnodes)
    ]


def device_env(run: RunConfig) -> dict[str, str]:
    """Variables of a stage on NPUs; sequence parallelism and asynchronous all-reduces need the first."""
    variables = {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_NPU_ALLOC_CONF": run.pytorch_npu_alloc_conf,
        "HCCL_CONNECT_TIMEOUT": run.hccl_connect_timeout,
        "HCCL_IF_BASE_PORT": run.hccl_if_base_port,
        "HCCL_SOCKET_IFNAME": run.socket_ifname,
        "GLOO_SOCKET_IFNAME": run.socket_ifname,
    }
    return {name: str(value) for name, value in variables.items() if value is not None}
