"""Signatures of flags that contradict each other: what Megatron and MindSpeed say before they start."""

from __future__ import annotations

import re

from qwen3_ops.mindspeed.diagnosis.signature import Fault, Signature

_CHOOSE = "Choose sizes that divide; `qwen3-ops plan` refuses such a run before it starts."


def _refusal(name: str, needle: str, cause: str, example: str, *, remedy: str = _CHOOSE, pattern: str | None = None) -> Signature:
    return Signature(
        name=name,
        needles=(needle,),
        cause=cause,
        remedy=remedy,
        fault=Fault.BAD_INPUT,
        example=example,
        pattern=None if pattern is None else re.compile(pattern),
    )


SIGNATURES: tuple[Signature, ...] = (
    _refusal(
        "layout-world-size",
        "world size (",
        "the number of devices is not divisible by TP, PP and CP",
        "AssertionError: world size (6) is not divisible by tensor parallel size (2) times pipeline parallel size (4) times context "
        "parallel size (1)",
        pattern=r"world size \(\d+\) is not divisible by",
    ),
    _refusal(
        "layout-global-batch",
        "global batch size (",
        "the global batch is not divisible by micro batch times data parallelism",
        "AssertionError: global batch size (10) is not divisible by micro batch size (4) times data parallel size (2)",
        pattern=r"global batch size \(\d+\) is not divisible by",
    ),
    _refusal(
        "layout-heads",
        "must be a multiple of tensor_model_parallel_size",
        "attention heads or key-value groups are not divisible by TP",
        "ValueError: num_query_groups (8) must be a multiple of tensor_model_parallel_size (16).",
        remedy="For every dense Qwen3, TP is 1, 2, 4 or 8.",
    ),
    _refusal(
        "layout-divide",
        "is not divisible by",
        "a size of the model is not divisible by the layout",
        "AssertionError: 5120 is not divisible by 3",
        pattern=r"AssertionError: \d+ is not divisible by \d+",
    ),
    _refusal(
        "layout-context-parallel",
        "context-parallel-size",
        "the sequence length is not divisible by twice the context parallelism",
        "AssertionError: seq-length should be a multiple of 2 * context-parallel-size if context-parallel-size > 1.",
        pattern=r"seq-length should be a multiple of",
    ),
    _refusal(
        "max-connections",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDA_DEVICE_MAX_CONNECTIONS is not 1",
        "RuntimeError: Using sequence parallelism requires setting the environment variable CUDA_DEVICE_MAX_CONNECTIONS to 1",
        remedy="Set it; the rendered commands do.",
        pattern=r"requires setting the environment variable CUDA_DEVICE_MAX_CONNECTIONS",
    ),
    _refusal(
        "template-missing",
        "does not exist.",
        "the installed MindSpeed-LLM has no such template",
        "ValueError: Template qwen3 does not exist.",
        remedy="Use qwen with 2.1.0; qwen3 came later.",
        pattern=r"Template \S+ does not exist",
    ),
    _refusal(
        "path-not-writable",
        "not writable",
        "MindSpeed-LLM wants to write into a folder that is read-only",
        "ValueError: File /weights/Qwen3-14B not writable",
        remedy="Mount it writable, or give it a writable copy of links.",
    ),
    _refusal(
        "path-invalid",
        "Invalid input path",
        "MindSpeed-LLM accepts no such characters in a path",
        "ValueError: Invalid input path: /data/a&b",
        remedy="Use letters, digits and . / _ - ~ only.",
    ),
    _refusal(
        "output-folder-missing",
        "is not a directory or does not exist",
        "the folder of --output-prefix does not exist",
        "ValueError: /out/alpaca is not a directory or does not exist",
        remedy="Make it first.",
    ),
    _refusal(
        "unknown-argument",
        "error: ",
        "this MindSpeed-LLM does not know a flag",
        "posttrain_gpt.py: error: unrecognized arguments: --lora-ckpt-filter",
        remedy="Set mindspeed_version to the installed one.",
        pattern=r"error: (unrecognized arguments|ambiguous option|argument --|the following arguments are required)",
    ),
    _refusal(
        "high-availability",
        "High availability feature do not support",
        "MindIO's fault tolerance needs a newer Megatron core",
        "AssertionError: High availability feature do not support core_r0.8.0",
        remedy="Leave out --enable-high-availability.",
    ),
    Signature(
        name="package-missing",
        needles=("ModuleNotFoundError",),
        cause="the environment lacks a package: conda is not active, CANN's set_env.sh was not sourced, or it was never installed",
        remedy="Look at the login shell of the container: `bash -lic env`.",
        fault=Fault.CODE,
        example="ModuleNotFoundError: No module named 'torch_npu'",
    ),
    Signature(
        name="package-unfit",
        needles=("ImportError: cannot import name", "requires NumPy"),
        cause="two packages of the environment do not fit each other: one is newer or older than the other one wants",
        remedy="Compare `pip list` in the container with MindSpeed-LLM's requirements.txt.",
        fault=Fault.CODE,
        example="ImportError: cannot import name 'FusedSGD' from 'apex.optimizers' (mindspeed.dummy_module.py)",
        pattern=re.compile(r"ImportError: (cannot import name|\S+ requires NumPy)"),
    ),
    Signature(
        name="library-missing",
        needles=("cannot open shared object file", "undefined symbol", "static TLS block"),
        cause="a library of CANN can not be loaded: its set_env.sh was not sourced, or versions do not fit",
        remedy="Look at the login shell of the container: `bash -lic env`; install the CANN that torch_npu was built for.",
        fault=Fault.CODE,
        example="ImportError: libhccl.so: cannot open shared object file: No such file or directory",
        pattern=re.compile(r"(ImportError|OSError): .*(cannot open shared object file|undefined symbol|static TLS block)"),
    ),
)
