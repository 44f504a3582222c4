"""A machine that looks as if the 14B could be trained on it: every rule is content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qwen3_ops import model, rules
from qwen3_ops.pipelines import KINDS, PIPELINES
from qwen3_ops.recipes import name_of
from qwen3_ops.request import resolve
from qwen3_ops.rules import capacity, network

RELEASED = json.loads(Path(model.__file__).with_name("released.json").read_text())


class Machine:
    """Folders of a run, and what the rules find for a request."""

    def __init__(self, folder, tokenizer_dir):
        self.folder = folder
        self.model = folder / "Qwen3-14B"
        shutil.copytree(tokenizer_dir, self.model)
        (self.model / "config.json").write_text(json.dumps(RELEASED["Qwen3-14B"]))
        (self.model / "model.safetensors").touch()
        self.data = folder / "alpaca.parquet"
        self.data.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
        self.tasks = folder / "mmlu"
        self.tasks.mkdir()
        (self.tasks / "law_test.csv").touch()
        self.mindspeed = folder / "MindSpeed-LLM"
        self.mindspeed.mkdir()
        for name in ("posttrain_gpt.py", "preprocess_data.py"):
            (self.mindspeed / name).touch()

    def request(self, pipeline="lora_sft", **changes):
        return {
            "recipe": name_of("14B", KINDS[pipeline]),
            "model_dir": str(self.model),
            "input": str(self.data),
            "task_data_path": str(self.tasks),
            "mindspeed_dir": str(self.mindspeed),
            "output_root": str(self.folder / "out"),
            "hccl_if_base_port": 20000,
            "device_memory": 128,  # the runbook's LoRA of four records a micro batch is too large for 64 at full length
            **changes,
        }

    def findings(self, pipeline="lora_sft", **changes):
        run, wrong = resolve(self.request(pipeline, **changes))
        spec = model.ModelSpec.from_hf(Path(run.model_dir), model_type=None)
        return wrong + rules.apply(run, spec, stages=PIPELINES[pipeline])


@pytest.fixture
def machine(tmp_path, tokenizer_dir, monkeypatch):
    monkeypatch.setattr(capacity, "host_memory", lambda: 10**12)
    monkeypatch.setattr(network, "_taken", lambda port: False)
    return Machine(tmp_path, tokenizer_dir)
