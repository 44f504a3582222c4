from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qwen3_ops import __version__
from qwen3_ops.glossary import GLOSSARY
from qwen3_ops.planning_cli import parse_overrides
from qwen3_ops.verbs import VERBS


def ops(*argv):
    return subprocess.run([sys.executable, "-m", "qwen3_ops", *map(str, argv)], capture_output=True, text=True, timeout=120)


def test_version_and_help():
    assert ops("--version").stdout.strip() == __version__
    said = ops("--help")
    assert said.returncode == 0
    assert all(verb in said.stdout for verb in (*VERBS, "plan", "run-stage", "make-tiny"))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_shows_its_flags(verb):
    said = ops(verb, "--help")
    assert said.returncode == 0, said.stderr
    assert VERBS[verb].script in said.stdout
    assert "without effect" in said.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_has_a_meaning_and_the_glossary_no_stranger(verb):
    fields = VERBS[verb].flags().model_fields
    assert [name for name, field in fields.items() if not (field.description or name in GLOSSARY)] == []
    known = {name for other in VERBS.values() for name in other.flags().model_fields}
    assert set(GLOSSARY) <= known


def test_a_refused_plan_ends_with_the_contracts_code_and_all_findings(tmp_path):
    said = ops(
        "plan", "--recipe", "tiny", "--set", f"output_root={tmp_path}/out", "--set", "model_dir=/none", "--set", "lora_s=1", "--save"
    )
    assert said.returncode == 2
    assert "model_dir" in said.stderr
    assert "lora_s" in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_ends_with_2():
    assert ops("plan", "--no-such-option").returncode == 2
    assert ops("plan", "--set", "novalue").returncode == 2
    assert ops("plan", "--pipeline", "none").returncode == 2
    assert ops("run-stage", "/no/plan.json", "x").returncode == 2
    unknown = ops("convert-ckpt", "--lode-dir", "/a")
    assert unknown.returncode == 2
    assert "--lode-dir: unknown flag (did you mean --load-dir?)" in unknown.stderr


def test_fields_are_listed():
    said = ops("plan", "--fields")
    assert said.returncode == 0
    assert "tensor_model_parallel_size" in said.stdout


def test_overrides_are_typed_by_json_or_text():
    assert parse_overrides(
        ["train_iters=5", "lr=1e-4", "prompt_type=qwen", 'map_keys={"prompt":"q"}', 'lora_target_modules=["linear_qkv"]']
    ) == {
        "train_iters": 5,
        "lr": 1e-4,
        "prompt_type": "qwen",
        "map_keys": '{"prompt":"q"}',
        "lora_target_modules": ["linear_qkv"],
    }


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from qwen3_ops import cli, plan, report, execute, rules\n"
        "from qwen3_ops.native.data import templates, tokenizer\n"
        "from qwen3_ops.verbs import VERBS\n"
        "[verb.flags() for verb in VERBS.values()]\n"
        "heavy = {'torch', 'transformers', 'airflow', 'docker', 'pyarrow', 'numpy', 'peft', 'safetensors', 'tokenizers'} & set(sys.modules)\n"
        "import json; print(json.dumps(sorted(heavy)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == []
