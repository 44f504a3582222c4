"""Templates and the tokenizer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import jinja2
import pytest

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.conversation import Conversation, Message, Unusable, render
from qwen3_ops.native.data.templates import TEMPLATES, Special
from qwen3_ops.native.data.tokenizer import Tokenizer, missing_tokens


def _text(conversation, prompt_type, eos):
    parts = []
    for turn in render(conversation, TEMPLATES[prompt_type]):
        for slot in (*turn.source, *turn.target):
            parts.append(eos if slot is Special.EOS else slot)
    return "".join(parts)


def _messages(*pairs):
    return tuple(Message(role=role, content=content) for role, content in pairs)


TOOLS = json.dumps([{"name": "add", "description": "Adds.", "parameters": {"properties": {"a": {"type": "number"}}, "required": ["a"]}}])
CALL = {"name": "add", "arguments": {"a": 1, "b": "é"}}


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("turns", [1, 3])
def test_qwen3_renders_as_the_models_own_chat_template(tokenizer_dir, system, tools, turns):
    conversation = [message for turn in range(turns) for message in (("user", f"question {turn}"), ("assistant", f"answer {turn}"))]
    ours = _text(Conversation(notes=[], messages=_messages(*conversation), system=system, tools=tools), "qwen3", "<|im_end|>")
    theirs = _chat_template(tokenizer_dir).render(
        messages=[{"role": "system", "content": system}] * bool(system) + [{"role": role, "content": text} for role, text in conversation],
        tools=json.loads(tools) if tools else None,
    )
    assert ours + "\n" == theirs


@pytest.mark.parametrize("answers", [("<think>\nwhy\n</think>\n\nyes", "no"), ("yes", "<think>why</think>no"), ("a", "\n\nb")])
def test_qwen3_reasoning_renders_as_the_models_own_chat_template(tokenizer_dir, answers):
    conversation = [message for answer in answers for message in (("user", "q"), ("assistant", answer))]
    ours = _text(Conversation(notes=[], messages=_messages(*conversation)), "qwen3", "<|im_end|>")
    theirs = _chat_template(tokenizer_dir).render(messages=[{"role": role, "content": text} for role, text in conversation])
    assert ours + "\n" == theirs


def test_qwen3_trains_reasoning_and_not_its_empty_block():
    def last(answer):
        *_, turn = render(Conversation(notes=[], messages=_messages(("user", "q"), ("assistant", answer))), TEMPLATES["qwen3"])
        return "".join(turn.source[-1:]), turn.target[0]

    assert last("yes") == ("<think>\n\n</think>\n\n", "yes")
    assert last("<think>why</think>yes") == ("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "<think>\nwhy\n</think>\n\nyes")


def test_qwen3_refuses_a_call_that_is_none():
    messages = _messages(("user", "q"), ("function", "not JSON"))
    with pytest.raises(Unusable, match="function call"):
        list(render(Conversation(notes=[], messages=messages), TEMPLATES["qwen3"]))
    _, target = next((turn.source, turn.target) for turn in render(Conversation(notes=[], messages=messages), TEMPLATES["qwen"]))
    assert target[0] == "Action: \nAction Input: "


def test_qwen3_tool_call_renders_as_the_models_own_chat_template(tokenizer_dir):
    messages = _messages(("user", "1+1?"), ("function", json.dumps(CALL)), ("observation", "2"), ("assistant", "Two."))
    ours = _text(Conversation(notes=[], messages=messages, tools=TOOLS), "qwen3", "<|im_end|>")
    theirs = _chat_template(tokenizer_dir).render(
        messages=[
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "Two."},
        ],
        tools=json.loads(TOOLS),
    )
    assert ours + "\n" == theirs


def _chat_template(tokenizer_dir):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((tokenizer_dir / "chat_template.jinja").read_text(encoding="utf-8"))


def test_only_the_first_placeholder_is_filled():
    messages = _messages(("user", "{{content}} {{idx}} {{idx}}"), ("assistant", "{{idx}}"))
    assert _text(Conversation(notes=[], messages=messages), "default", "") == "Human: {{content}} 0 {{idx}}\nAssistant:{{idx}}"


def test_llama2_counts_no_turns_and_puts_the_system_text_before_a_user_only():
    asked = _messages(("user", "a {{idx}}"), ("assistant", "b"))
    assert "[INST] <<SYS>>\ns\n<</SYS>>\n\na {{idx}} [/INST]" in [*render(Conversation(asked, [], "s"), TEMPLATES["llama2"])[0].source]
    observed = _messages(("observation", "a"), ("assistant", "b"))
    assert render(Conversation(observed, [], "s"), TEMPLATES["llama2"])[0].source[-1] == "[INST] a [/INST]"


@pytest.mark.parametrize("prompt_type", ["qwen", "qwen3", "chatml", "default", "llama2"])
def test_nothing_is_missing(tokenizer_dir, prompt_type):
    assert missing_tokens(tokenizer_dir, prompt_type) == []


def test_missing_tokens_are_named_and_refused(tmp_path, tokenizer_dir):
    assert missing_tokens(tokenizer_dir, "llama3") == ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    shutil.copytree(tokenizer_dir, tmp_path / "tok")
    path = tmp_path / "tok" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|im_end|>"]
    path.write_text(json.dumps(content))
    assert missing_tokens(tmp_path / "tok", "qwen") == ["<|im_end|>"]
    with pytest.raises(BadInput, match=r"lacks tokens of the prompt type qwen: <\|im_end\|>"):
        Tokenizer(tmp_path / "tok").use_template("qwen")
    with pytest.raises(BadInput, match=r"prompt type chatglm2: \[gMASK\], sop"):
        Tokenizer(tokenizer_dir).use_template("chatglm2")


def test_tokenizer(tokenizer_dir):
    tokenizer = Tokenizer(tokenizer_dir)
    assert (tokenizer.vocabulary_size, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (512, 509, 507, None)
    ids = tokenizer.encode("<|im_start|>héllo<|im_end|>")
    assert (ids[0], ids[-1]) == (508, 509)
    assert tokenizer.decode(ids) == "héllo"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>héllo<|im_end|>"
    assert len(tokenizer.sha256) == 64


def test_template_changes_the_end_token(tokenizer_dir):
    tokenizer = Tokenizer(tokenizer_dir)
    assert tokenizer.use_template("llama3") == ["<|eot_id|>"]
    assert (tokenizer.eos_token_id, tokenizer.vocabulary_size) == (512, 513)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}'])
def test_damaged_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput):
        Tokenizer(tmp_path)
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        missing_tokens(tmp_path / "nothing", "qwen")


def test_light_imports():
    """The plan reads templates and missing tokens; preparing JSON data needs neither torch nor transformers nor numpy."""
    code = """
import sys
import qwen3_ops.native.data.flags, qwen3_ops.native.data.tokenizer
assert not {"tokenizers", "pyarrow", "numpy"} & set(sys.modules)
import qwen3_ops.native.data.verb
assert not {"torch", "transformers", "pyarrow", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
