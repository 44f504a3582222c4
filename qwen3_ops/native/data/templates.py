"""Prompt types: how a conversation is written down for each model family.

The texts are MindSpeed-LLM 2.1.0's ``configs/finetune/templates.json``, but for ``qwen3``, which is
ours: that release has none. Light: the plan reads this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal, Union


class Special(Enum):
    """A token that the tokenizer names, not the template."""

    BOS = "bos_token"  # left out where the tokenizer has none
    EOS = "eos_token"


@dataclass(frozen=True)
class Token:
    """Exactly the token of this text; a tokenizer without it can not be used."""

    text: str


Slot = Union[str, Special, Token]  # noqa: UP007
Slots = tuple[Slot, ...]
ToolFormat = Union[Literal["react", "qwen3"], None]  # noqa: UP007

CONTENT = "{{content}}"
INDEX = "{{idx}}"
_DEFAULT_FUNCTION = "Action: {{name}}\nAction Input: {{arguments}}"


@dataclass(frozen=True, kw_only=True)
class Template:
    """One prompt type. Every string of a slot is tokenized by itself.

    Attributes:
        markers: the special tokens it writes.
        assistant: None = the content, then EOS unless ``efficient_eos``; likewise ``function``.
        observation: None = as ``user``.
        stop_words: made special tokens; the first becomes EOS with ``replace_eos``.
        efficient_eos: EOS is trained between turns and stands once, at the end.
        system_in_user: the system text is put in front of the first user's content, and turns are not counted (llama2).
        thought: put behind the last user's or observation's text, before the answer.
        tools: how tools are told: as ``Action:`` lines, as Qwen3 does, or not at all (None).
        own: of the Qwen family: a tokenizer without its markers is a mix-up, not a choice.
    """

    user: Slots = (CONTENT,)
    assistant: Slots | None = None
    system: Slots = (CONTENT,)
    function: Slots | None = None
    observation: Slots | None = None
    prefix: Slots = ()
    separator: Slots = ()
    default_system: str = ""
    stop_words: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    replace_eos: bool = False
    efficient_eos: bool = False
    system_in_user: bool = False
    thought: str = ""
    tools: ToolFormat = "react"
    own: bool = False

    @cached_property
    def slots(self) -> Mapping[str, Slots]:
        """Slots by role of the message."""
        end: Slots = () if self.efficient_eos else (Special.EOS,)
        return {
            "user": self.user,
            "assistant": (CONTENT, *end) if self.assistant is None else self.assistant,
            "observation": self.user if self.observation is None else self.observation,
            "function": (_DEFAULT_FUNCTION, *end) if self.function is None else self.function,
        }

    @property
    def tokens(self) -> list[Token]:
        """Tokens without which nothing can be written."""
        return [slot for slots in (self.prefix, self.system, *self.slots.values()) for slot in slots if isinstance(slot, Token)]


def _chatml(*, user: str = CONTENT, default_system: str = "", stop_words: tuple[str, ...] = ("<|im_end|>",)) -> Template:
    return Template(
        user=(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",),
        system=(f"<|im_start|>system\n{CONTENT}<|im_end|>\n",),
        observation=(f"<|im_start|>tool\n{CONTENT}<|im_end|>\n<|im_start|>assistant\n",),
        separator=("\n",),
        default_system=default_system,
        stop_words=stop_words,
        markers=("<|im_start|>", "<|im_end|>"),
        replace_eos=True,
        own=True,
    )


_R1 = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks about "
    "the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think><answer> answer here "
    "</answer>Put your final answer within \\\\boxed{}. "
)
_INST = (f"[INST] {CONTENT} [/INST]",)
_DEEPSEEK2 = Template(user=(f"User: {CONTENT}\n\nAssistant:",), system=(f"{CONTENT}\n\n",), prefix=(Special.BOS,))
_GLM_PREFIX = (Token("[gMASK]"), Token("sop"))
_GLM_MARKERS = ("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>")


def _chatglm3(
    *, system: Slots, prefix: Slots = (), default_system: str = "", function: Slots | None = None, tools: ToolFormat = "react"
) -> Template:
    return Template(
        user=(Token("<|user|>"), "\n", CONTENT, Token("<|assistant|>")),
        assistant=("\n", CONTENT),
        observation=(Token("<|observation|>"), "\n", CONTENT, Token("<|assistant|>")),
        system=system,
        prefix=prefix,
        function=function,
        default_system=default_system,
        stop_words=("<|user|>", "<|observation|>"),
        markers=("[gMASK]", "sop", *_GLM_MARKERS),
        efficient_eos=True,
        tools=tools,
    )


_LLAMA3_TURN = "<|start_header_id|>{role}<|end_header_id|>\n\n{{{{content}}}}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"

TEMPLATES: Mapping[str, Template] = {
    "default": Template(user=(f"Human: {CONTENT}\nAssistant:",), system=(f"{CONTENT}\n",), separator=("\n",)),
    "empty": Template(assistant=(CONTENT,)),
    "trl": Template(assistant=(CONTENT,), prefix=(Special.BOS,)),
    "hunyuan": Template(assistant=(CONTENT,), default_system="You are a helpful assistant."),
    "qwen": _chatml(default_system="You are a helpful assistant."),
    "qwen_r1": _chatml(default_system="You are a helpful assistant.", user=_R1 + CONTENT),
    "qwen_math_r1": _chatml(default_system="Please reason step by step, and put your final answer within \\boxed{}."),
    "chatml": _chatml(stop_words=("<|im_end|>", "<|im_start|>")),
    "chatml_de": _chatml(
        stop_words=("<|im_end|>", "<|im_start|>"), default_system="Du bist ein freundlicher und hilfsbereiter KI-Assistent."
    ),
    # As Qwen3's chat template renders thinking off: an empty block in the last turn's prompt, no system text made up.
    "qwen3": Template(
        user=(f"<|im_start|>user\n{CONTENT}<|im_end|>\n<|im_start|>assistant\n",),
        system=(f"<|im_start|>system\n{CONTENT}<|im_end|>\n",),
        observation=(f"<|im_start|>user\n<tool_response>\n{CONTENT}\n</tool_response><|im_end|>\n<|im_start|>assistant\n",),
        function=('<tool_call>\n{"name": "{{name}}", "arguments": {{arguments}}}\n</tool_call>', Special.EOS),
        separator=("\n",),
        thought="<think>\n\n</think>\n\n",
        tools="qwen3",
        stop_words=("<|im_end|>",),
        markers=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        replace_eos=True,
        own=True,
    ),
    "llama2": Template(
        user=(Special.BOS, *_INST), system=(f"<<SYS>>\n{CONTENT}\n<</SYS>>\n\n",), system_in_user=True
    ),
    "llama3": Template(
        user=(_LLAMA3_TURN.format(role="user"),),
        system=(f"<|start_header_id|>system<|end_header_id|>\n\n{CONTENT}<|eot_id|>",),
        observation=(_LLAMA3_TURN.format(role="tool"),),
        prefix=(Special.BOS,),
        stop_words=("<|eot_id|>",),
        markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        replace_eos=True,
    ),
    "mistral": Template(user=_INST, prefix=(Special.BOS,)),
    "mixtral": Template(user=_INST, prefix=(Special.BOS,)),
    "gemma": Template(
        user=(f"<start_of_turn>user\n{CONTENT}<end_of_turn>\n<start_of_turn>model\n",),
        observation=(f"<start_of_turn>tool\n{CONTENT}<end_of_turn>\n<start_of_turn>model\n",),
        separator=("<end_of_turn>\n",),
        prefix=(Special.BOS,),
        markers=("<start_of_turn>", "<end_of_turn>"),
        efficient_eos=True,
    ),
    "alpaca": Template(
        user=(f"### Instruction:\n{CONTENT}\n\n### Response:\n",),
        separator=("\n\n",),
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n",
    ),
    "deepseek2": _DEEPSEEK2,
    "deepseek2-lite": _DEEPSEEK2,
    "deepseek3": Template(user=(f"<｜User｜>{CONTENT}<｜Assistant｜>",), prefix=(Special.BOS,), markers=("<｜User｜>", "<｜Assistant｜>")),
    "cpm": Template(user=(f"<用户>{CONTENT}<AI>",), prefix=(Special.BOS,)),
    "baichuan2": Template(
        user=(f"<reserved_106>{CONTENT}<reserved_107>",), markers=("<reserved_106>", "<reserved_107>"), efficient_eos=True
    ),
    "intern2": Template(
        user=(f"<|im_start|>user\n{CONTENT}<|im_end|>\n<|im_start|>assistant\n",),
        assistant=(f"{CONTENT}<|im_end|>\n",),
        system=(f"<|im_start|>system\n{CONTENT}<|im_end|>\n",),
        prefix=(Special.BOS,),
        stop_words=("<|im_end|>",),
        markers=("<|im_start|>", "<|im_end|>"),
    ),
    "chatglm2": Template(
        user=(f"[Round {INDEX}]\n\n问：{CONTENT}\n\n答：",),
        prefix=_GLM_PREFIX,
        separator=("\n\n",),
        markers=("[gMASK]", "sop"),
        efficient_eos=True,
    ),
    "chatglm3": _chatglm3(prefix=_GLM_PREFIX, system=(Token("<|system|>"), "\n", CONTENT), tools=None),
    "chatglm3_system": _chatglm3(
        system=(*_GLM_PREFIX, Token("<|system|>"), "\n", CONTENT),
        function=("{{name}}\n{{arguments}}",),
        default_system="You are ChatGLM3, a large language model trained by Zhipu.AI. "
        "Follow the user's instructions carefully. Respond using markdown.",
    ),
    "glm4": Template(
        user=(f"<|user|>\n{CONTENT}<|assistant|>",),
        assistant=(f"\n{CONTENT}",),
        system=(f"<|system|>\n{CONTENT}",),
        function=("{{name}}\n{{arguments}}",),
        observation=(f"<|observation|>\n{CONTENT}<|assistant|>",),
        prefix=("[gMASK]<sop>",),
        stop_words=("<|user|>", "<|observation|>"),
        markers=("[gMASK]", "<sop>", *_GLM_MARKERS),
        efficient_eos=True,
        tools=None,
    ),
}  # fmt: skip
