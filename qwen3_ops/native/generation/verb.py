"""``qwen3-ops generate``: text from a checkpoint, and a check that it is text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.native.data.conversation import Conversation
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.generation.beam import beam_search, likeliest, sampled
from qwen3_ops.native.generation.chat import chat, require_terminal
from qwen3_ops.native.generation.decode import Completion, Sampler, complete, greedy, sampler
from qwen3_ops.native.generation.flags import FLAGS
from qwen3_ops.native.generation.loading import load_model, load_tokenizer
from qwen3_ops.native.generation.prompts import Encode, encoder, read_prompts
from qwen3_ops.native.model import Qwen3
from qwen3_ops.verbs import Context, Outcome

_TITLES = {
    "greedy": "Greedy Search",
    "do_sample": "Do Sample",
    "beam_search": "Beam Search",
    "beam_search_with_sampling": "Beam Search with sampling",
}
_BATCH = 16  # prompts


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One prompt and what became of it; a line of generations.jsonl."""

    task: str
    prompt: str
    prompt_tokens: list[int]
    new_tokens: list[int]
    text: str
    ended: bool


class Drawing(TypedDict):
    """Settings of the tasks that draw."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Generate for every prompt and every task.

    Raises:
        BadInput: checkpoint, tokenizer or prompts do not fit.
        QualityGate: a logit is not a number, or the model writes nothing, or one token for ever.
    """
    if "chat" in flags.task:
        require_terminal()
    tokenizer = load_tokenizer(flags)
    encode = encoder(flags, tokenizer)
    conversations = read_prompts(flags.prompts)
    questions = [conversation.messages[-1].content for conversation in conversations]
    prompts = [encode(conversation) for conversation in conversations]
    _check_lengths(prompts, flags)
    model = load_model(flags, events=ctx.events)
    if "task" not in flags.model_fields_set:
        ctx.events.log("no --task: greedy only; this engine is never interactive")

    results: list[Generation] = []
    tasks = [task for task in flags.task if task != "chat"]
    started = time.perf_counter()
    with ctx.events.progress("generate", total=len(tasks) * len(prompts), unit="prompts") as progress:
        for task in tasks:
            print(f"\n=============== {_TITLES[task]} ================", flush=True)
            for result in _generate(task, questions, prompts, flags=flags, model=model, tokenizer=tokenizer):
                print(f"\nYou:\n{result.prompt}\n\nMindSpeed-LLM:\n{result.text}", flush=True)
                print("==============================================", flush=True)
                results.append(result)
                progress.advance()
    seconds = time.perf_counter() - started
    print(f"\nElapsed: {seconds:.2f}s", flush=True)
    if ctx.output is not None:
        lines = (json.dumps(asdict(result), ensure_ascii=False) for result in results)
        (ctx.output / "generations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    metrics = _check(results, seconds) if results else {}
    if "chat" in flags.task:
        metrics |= {"chat_answers": _chat(flags, encode, model=model, tokenizer=tokenizer)}
    facts = {"prompt_type": flags.prompt_type, "hf_chat_template": flags.hf_chat_template}
    return Outcome(kind="generation", facts=facts, metrics=metrics)


def _chat(flags: FLAGS, encode: Encode, *, model: Qwen3, tokenizer: Tokenizer) -> int:
    complete_batch = _completer("do_sample", flags=flags, model=model, eos=tokenizer.eos_token_id)

    def answer(conversation: Conversation) -> str:
        prompt = encode(conversation)
        _check_lengths([prompt], flags)
        (item,) = complete_batch([prompt])
        _refuse_nan(item, conversation.messages[-1].content)
        return tokenizer.decode(item.tokens)

    return chat(answer, history_turns=flags.history_turns, with_history=flags.hf_chat_template or flags.prompt_type is not None)


def _generate(
    task: str, questions: Sequence[str], prompts: Sequence[list[int]], *, flags: FLAGS, model: Qwen3, tokenizer: Tokenizer
) -> Iterator[Generation]:
    complete_batch = _completer(task, flags=flags, model=model, eos=tokenizer.eos_token_id)
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        for question, prompt, item in zip(questions[start:], batch, complete_batch(batch), strict=False):
            _refuse_nan(item, question)
            text = tokenizer.decode(item.tokens)
            yield Generation(task=task, prompt=question, prompt_tokens=prompt, new_tokens=item.tokens, text=text, ended=item.ended)


def _completer(task: str, *, flags: FLAGS, model: Qwen3, eos: int) -> Callable[[Sequence[list[int]]], list[Completion]]:
    """What continues a batch of prompts; draws of one task are made from one generator."""
    length = flags.max_new_tokens
    drawing: Drawing = {"temperature": flags.temperature, "top_k": flags.top_k, "top_p": flags.top_p, "seed": flags.seed}
    if task.startswith("beam_search"):
        strategy = sampled(**drawing) if task == "beam_search_with_sampling" else likeliest()
        return lambda batch: [
            beam_search(model, prompt, num_beams=flags.num_beams, max_new_tokens=length, eos=eos, strategy=strategy) for prompt in batch
        ]
    choose: Sampler = sampler(**drawing) if task == "do_sample" else greedy
    return lambda batch: complete(model, batch, max_new_tokens=length, eos=eos, choose=choose)


def _check_lengths(prompts: Sequence[list[int]], flags: FLAGS) -> None:
    for prompt in prompts:
        if not prompt:
            raise BadInput("a prompt has no tokens", source=flags.prompts or "the default prompt")
        if len(prompt) + flags.max_new_tokens > flags.max_position_embeddings:
            raise BadInput(
                "a prompt and its new tokens exceed --max-position-embeddings",
                value=f"{len(prompt)} + {flags.max_new_tokens} > {flags.max_position_embeddings}",
                source=flags.prompts,
                remedy="Shorten the prompt or lower --max-new-tokens.",
            )


def _refuse_nan(item: Completion, question: str) -> None:
    if not item.finite:
        raise QualityGate(
            "the model's logits are not numbers",
            value=question,
            remedy="The checkpoint is damaged or its training diverged: look at the loss and at the conversion's certificate.",
        )


def _check(results: Sequence[Generation], seconds: float) -> dict[str, float | int]:
    """Metrics of the run.

    Raises:
        QualityGate: no prompt was answered with more than one token over and over.
    """
    empty = sum(not result.text.strip() for result in results)
    stuck = sum(_is_stuck(result.new_tokens) for result in results)
    if empty + stuck == len(results):
        raise QualityGate(
            "the model writes nothing, or one token for ever",
            value=f"{empty} of {len(results)} answers empty, {stuck} stuck",
            remedy="Compare with the base model's output; check the template and the tokenizer.",
        )
    new_tokens = sum(len(result.new_tokens) for result in results)
    return {
        "prompts": len(results),
        "empty": empty,
        "stuck": stuck,
        "new_tokens": new_tokens,
        "tokens_per_second": round(new_tokens / seconds, 1),
    }


def _is_stuck(tokens: Sequence[int]) -> bool:
    """The second half, of eight tokens at least, is one token."""
    tail = tokens[len(tokens) // 2 :]
    return len(tail) >= 8 and len(set(tail)) == 1
