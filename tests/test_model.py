from __future__ import annotations

import json

import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.model import ModelSpec

QWEN3_14B = {
    "model_type": "qwen3",
    "num_hidden_layers": 40,
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "torch_dtype": "bfloat16",
}


def spec(**changes):
    config = {key: value for key, value in {**QWEN3_14B, **changes}.items() if value is not ...}
    return ModelSpec.from_config(config, source="config.json")


def test_the_14b_has_14_8_billion_parameters():
    assert spec().num_parameters == 14_768_307_200  # what the released model's index file sums up to


def test_both_spellings_of_newer_and_older_configs_are_read():
    new = spec(torch_dtype=..., dtype="bfloat16", rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": 1000000})
    assert new == spec()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "model_type must be qwen3: 'llama'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_size": ...}, "'hidden_size' is missing"),
        ({"torch_dtype": "float8"}, "dtype 'float8'"),
        ({"num_hidden_layers": "many"}, "wrong value"),
    ],
)
def test_what_is_no_dense_qwen3_is_refused(changes, said):
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        spec(**changes)


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(BadInput, match="is not there"):
        ModelSpec.from_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match="can not be read"):
        ModelSpec.from_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(BadInput, match="not a JSON object"):
        ModelSpec.from_hf(tmp_path)
