"""make-tiny as a whole, with a base that has hardly been trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qwen3_ops.artifacts import describe_files
from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.model import ModelSpec
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.mmlu.questions import read_subjects
from qwen3_ops.native.tiny.make import make_tiny, twin_spec

TEXTS = [
    "What is gold?\nAnswer: It is a metal.",
    "狗是一种动物。",
    "Ünïcode 12345 don't\r\n\n  x",
    "<|im_start|>user\nhi<|im_end|>\n<think>\n",
]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "twin"
    make_tiny(folder, steps=2, events=Events())
    return folder


def test_it_holds_what_the_pipeline_needs(twin: Path) -> None:
    assert {path.name for path in twin.iterdir()} == {
        "model",
        "alpaca.parquet",
        "sharegpt.jsonl",
        "openai.jsonl",
        "pretrain.parquet",
        "mmlu",
    }
    assert {path.name for path in (twin / "model").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json",
        "merges.txt", "special_tokens_map.json", "chat_template.jinja",
    }  # fmt: skip
    assert ModelSpec.from_hf(twin / "model") == twin_spec()
    assert all(len(subject.examples) == 5 for subject in read_subjects(twin / "mmlu" / "data" / "test"))


def test_the_shape_is_the_14bs_in_small() -> None:
    spec = twin_spec()
    assert spec.untie_embeddings_and_output_weights
    assert (spec.num_layers, spec.num_attention_heads, spec.num_query_groups) == (4, 8, 4)
    assert spec.num_attention_heads * spec.kv_channels != spec.hidden_size


def test_the_same_seed_gives_the_same_bytes(twin: Path, tmp_path: Path) -> None:
    make_tiny(tmp_path / "again", steps=2, events=Events())
    make_tiny(tmp_path / "other", seed=1, steps=2, events=Events())
    assert describe_files(tmp_path / "again") == describe_files(twin)
    other = {file.path: file.sha256 for file in describe_files(tmp_path / "other")}
    assert all(other[name] != file.sha256 for file in describe_files(twin) if (name := file.path).endswith((".parquet", ".safetensors")))


def test_transformers_loads_it(twin: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(twin / "model", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(twin / "model")
    assert model.dtype is torch.bfloat16
    assert len(tokenizer) == twin_spec().padded_vocab_size
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    ours = Tokenizer(twin / "model")
    for text in TEXTS:
        assert tokenizer(text).input_ids == ours.encode(text)
        assert ours.decode(ours.encode(text), skip_special_tokens=False) == text
    ids = torch.tensor([ours.encode(TEXTS[0])])
    assert torch.isfinite(model(ids).logits).all()


def test_the_chat_template_writes_what_the_qwen_template_does(twin: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(twin / "model")
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    asked = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_common_words_and_letters_are_one_token(twin: Path) -> None:
    tokenizer = Tokenizer(twin / "model")
    for text in (" A", " B", " C", " D", " animal"):
        assert len(tokenizer.encode(text)) == 1


def test_what_stands_there_is_not_overwritten(twin: Path) -> None:
    before = json.loads((twin / "model" / "config.json").read_text())
    with pytest.raises(BadInput, match="exists already"):
        make_tiny(twin, steps=2, events=Events())
    assert json.loads((twin / "model" / "config.json").read_text()) == before
