"""Files of prompts, and how they are written for the model: raw, by a prompt type, by the tokenizer's chat template."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from qwen3_ops.errors import BadInput
from qwen3_ops.native.generation.flags import FLAGS
from qwen3_ops.native.generation.loading import load_tokenizer
from qwen3_ops.native.generation.prompts import encoder, question, read_prompts

CONVERSATION: list[dict[str, str]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Well."},
    {"role": "user", "content": "And now?"},
]


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def contents(path: Path) -> list[str]:
    return [prompt.messages[-1].content for prompt in read_prompts(path)]


@pytest.fixture
def chat_tokenizer(tokenizer_dir: Path, tmp_path: Path) -> Path:
    """The small tokenizer with Qwen3's chat template."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_dir, folder)
    template = resources.files("qwen3_ops.native.tiny").joinpath("samples/chat_template.jinja").read_text(encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")
    return folder


def with_tokenizer(argv: list[str], folder: Path) -> list[str]:
    changed = list(argv)
    changed[changed.index("--tokenizer-name-or-path") + 1] = str(folder)
    return changed


def encoded(argv: list[str], prompt: Any) -> list[int]:
    flags, _ = FLAGS.parse(argv)
    return encoder(flags, load_tokenizer(flags))(prompt)


def test_lines_as_windows_and_editors_write_them(tmp_path: Path) -> None:
    assert contents(written(tmp_path / "a.txt", "\ufeffone\r\n\r\n  two \n\nthree\u2028still three")) == [
        "one",
        "  two ",
        "three\u2028still three",
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"prompt": "one\ntwo"}, {"messages": CONVERSATION}, {"messages": CONVERSATION[1:2], "id": 7}]
    path = written(tmp_path / "a.jsonl", "\ufeff" + "\r\n".join(json.dumps(line) for line in lines) + "\r\n")
    assert contents(path) == ["one\ntwo", "And now?", "How are you?"]
    assert [prompt.system for prompt in read_prompts(path)] == ["", "Be short.", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no prompt"),
        ("\n \n", "there is no prompt"),
        ('{"prompt": "a"}\n{"prompt"', "line 2"),
        ('{"prompt": ""}', "line 1"),
        ('{"prompt": 3}', "line 1"),
        ('"text"', "line 1"),
        ('{"messages": []}', "by turns"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "by turns"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "the user first and last"),
        ('{"messages": [{"role": "user"}]}', "a text as content"),
        ('{"messages": ["a"]}', "a text as content"),
    ],
)
def test_what_is_no_prompt_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        read_prompts(written(tmp_path / "a.jsonl", text))


def test_a_json_file_is_not_taken_for_lines(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="prompts are a text file"):
        read_prompts(written(tmp_path / "a.json", "[]"))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="can not be read"):
        read_prompts(path)


@pytest.mark.parametrize("thinking", ["true", "false", None])
def test_the_chat_template_equals_transformers(
    thinking: str | None, chat_tokenizer: Path, inference_argv: list[str], tmp_path: Path
) -> None:
    (prompt,) = read_prompts(written(tmp_path / "a.jsonl", json.dumps({"messages": CONVERSATION})))
    extra = ["--hf-chat-template", *(["--enable-thinking", thinking] if thinking else [])]
    options = {} if thinking is None else {"enable_thinking": thinking == "true"}
    wanted = AutoTokenizer.from_pretrained(chat_tokenizer).apply_chat_template(CONVERSATION, add_generation_prompt=True, **options)
    if not isinstance(wanted, list):  # newer transformers give a dictionary
        wanted = wanted["input_ids"]
    assert encoded([*with_tokenizer(inference_argv, chat_tokenizer), *extra], prompt) == wanted


@pytest.mark.parametrize("thinking", ["true", "false"])
def test_the_prompt_type_qwen3_equals_the_chat_template(
    thinking: str, chat_tokenizer: Path, inference_argv: list[str], tmp_path: Path
) -> None:
    """Also where a conversation came before."""
    (prompt,) = read_prompts(written(tmp_path / "a.jsonl", json.dumps({"messages": CONVERSATION})))
    argv = [*with_tokenizer(inference_argv, chat_tokenizer), "--enable-thinking", thinking]
    ours = encoded([*argv, "--prompt-type", "qwen3"], prompt)
    tokenizer = load_tokenizer(FLAGS.parse([*argv, "--prompt-type", "qwen3"])[0])
    theirs = encoded([*argv, "--hf-chat-template"], prompt)
    assert tokenizer.decode(ours, skip_special_tokens=False) == tokenizer.decode(theirs, skip_special_tokens=False)


def test_the_prompt_type_qwen3_does_not_think_by_default(chat_tokenizer: Path, inference_argv: list[str]) -> None:
    argv = [*with_tokenizer(inference_argv, chat_tokenizer), "--prompt-type", "qwen3"]
    assert encoded(argv, question("a")) == encoded([*argv, "--enable-thinking", "false"], question("a"))
    assert encoded(argv, question("a")) != encoded([*argv, "--enable-thinking", "true"], question("a"))


def test_a_tokenizer_without_a_chat_template(chat_tokenizer: Path, inference_argv: list[str]) -> None:
    (chat_tokenizer / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((chat_tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    (chat_tokenizer / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}), encoding="utf-8")
    with pytest.raises(BadInput, match="has no chat template"):
        encoded([*with_tokenizer(inference_argv, chat_tokenizer), "--hf-chat-template"], question("a"))


def test_a_raw_conversation_is_refused(inference_argv: list[str], tmp_path: Path) -> None:
    (prompt,) = read_prompts(written(tmp_path / "a.jsonl", json.dumps({"messages": CONVERSATION})))
    with pytest.raises(BadInput, match="needs a template"):
        encoded(inference_argv, prompt)
