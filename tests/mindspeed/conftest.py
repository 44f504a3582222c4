from __future__ import annotations

import pytest

from qwen3_ops.mindspeed.request import Request


@pytest.fixture
def request_of(tmp_path):
    def make(verb="train", *, devices=8, kind="lora_checkpoint", **flags) -> Request:
        argv = ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "4", "--load", "/base", "--train-iters", "20"]
        for name, value in flags.items():
            argv += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        output = tmp_path / "out"
        output.mkdir(exist_ok=True)
        return Request(verb=verb, kind=kind, argv=tuple(argv), output=output, devices=devices)

    return make
