"""``qwen3-ops evaluate``: MMLU by the runbook's protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.generation.chat_template import load_chat_template
from qwen3_ops.native.generation.decode import Completion
from qwen3_ops.native.generation.loading import load_model, load_tokenizer
from qwen3_ops.native.mmlu.batches import answer_all
from qwen3_ops.native.mmlu.differences import differences, listed
from qwen3_ops.native.mmlu.flags import FLAGS
from qwen3_ops.native.mmlu.questions import Question, Subject, other_files, read_subjects
from qwen3_ops.native.mmlu.scoring import Answer, Score, answer_line, by_subject, read_answer, score, subject_line, table, total_line
from qwen3_ops.verbs import Context, Outcome

Encode = Callable[[str], list[int]]
"""A prompt's tokens."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as it goes to the model."""

    number: int
    question: Question
    tokens: list[int]
    shots: int


def run(flags: FLAGS, ctx: Context) -> Outcome:
    """Answer every question and score it; the accuracy is the micro average.

    Raises:
        BadInput: checkpoint, tokenizer or questions do not fit.
        QualityGate: the model's logits are not numbers.
    """
    started = time.perf_counter()
    subjects = read_subjects(flags.task_data_path, limit=flags.max_eval_samples)
    others = other_files(flags.task_data_path)
    tokenizer = load_tokenizer(flags)
    model = load_model(flags, events=ctx.events)
    encode = tokenizer.encode if flags.no_chat_template else _in_chat_template(flags, tokenizer, ctx.events)
    answers: list[Answer] = []
    notes = [f"not read, the names do not end in _test.csv: {listed(others)}; the real tool reads every file"] if others else []
    for note in notes:
        ctx.events.warning(note)
    with ctx.events.progress("MMLU", total=sum(len(subject.questions) for subject in subjects), unit="questions") as progress:
        for subject in subjects:
            asked = _asked(subject, encode, flags=flags)
            for note in differences(subject, shots=[item.shots for item in asked]):
                ctx.events.warning(note)
                notes.append(note)
            mine: list[Answer] = []
            answered = answer_all(model, [item.tokens for item in asked], max_new_tokens=flags.max_new_tokens, eos=tokenizer.eos_token_id)
            for number, completion in answered:
                mine.append(_scored(subject, asked[number], completion, tokenizer))
                progress.advance()
            mine.sort(key=lambda answer: answer.number)
            print(*map(answer_line, mine), sep="\n")
            print(subject_line(subject.name, score(mine)), flush=True)
            answers += mine
    total, per_subject = score(answers), by_subject(answers)
    seconds = time.perf_counter() - started
    print(f"{total_line(total)}\n{table(per_subject, total)}\nMMLU Running Time:, {seconds}", flush=True)
    metrics = _metrics(answers, total, per_subject)
    if ctx.output is not None:
        _write(ctx.output, answers, metrics | {"differences_from_the_real_tool": notes})
    protocol = "direct" if flags.no_chat_template else "chat template"
    facts = {"task": "mmlu", "protocol": protocol, "max_new_tokens": flags.max_new_tokens, "tokenizer_sha256": tokenizer.sha256}
    return Outcome(kind="evaluation", facts=facts, metrics=metrics)


def _in_chat_template(flags: FLAGS, tokenizer: Tokenizer, events: Events) -> Encode:
    template = load_chat_template(flags.tokenizer_name_or_path)
    events.warning("no --no-chat-template: chat turns without a generation prompt; the scores are not those of the runbook's protocol")
    return lambda text: tokenizer.encode(template([{"role": "user", "content": text}], add_generation_prompt=False))


def _asked(subject: Subject, encode: Encode, *, flags: FLAGS) -> list[Asked]:
    limit = flags.max_position_embeddings - flags.max_new_tokens
    return [_ask(subject, number, question, encode, limit=limit) for number, question in enumerate(subject.questions)]


def _ask(subject: Subject, number: int, question: Question, encode: Encode, *, limit: int) -> Asked:
    """With as many of the subject's examples as fit into ``limit`` tokens."""
    for shots in range(len(subject.examples), -1, -1):
        tokens = encode(subject.prompt(question, shots=shots))
        if len(tokens) <= limit:
            return Asked(number=number, question=question, tokens=tokens, shots=shots)
    raise BadInput(
        "a question alone exceeds --max-position-embeddings",
        value=f"{len(tokens)} > {limit}",
        source=f"{subject.name}, question {number + 1}",
        remedy="Leave it out, or evaluate a model with a longer context.",
    )


def _scored(subject: Subject, item: Asked, completion: Completion, tokenizer: Tokenizer) -> Answer:
    if not completion.finite:
        raise QualityGate(
            "the model's logits are not numbers",
            value=f"{subject.name}, question {item.number + 1}",
            remedy="The checkpoint is damaged or its training diverged: look at the loss and at the conversion's certificate.",
        )
    text = tokenizer.decode(completion.tokens)
    return Answer(
        subject=subject.name,
        number=item.number,
        question=item.question.text,
        correct=item.question.answer,
        predicted=read_answer(text),
        text=text,
        shots=item.shots,
        prompt_tokens=len(item.tokens),
    )


def _metrics(answers: Sequence[Answer], total: Score, subjects: dict[str, Score]) -> dict[str, Any]:
    return {
        "accuracy": total.accuracy,
        "correct": total.correct,
        "questions": total.questions,
        "unanswered": sum(answer.predicted is None for answer in answers),
        "per_subject": {name: asdict(result) | {"accuracy": result.accuracy} for name, result in subjects.items()},
    }


def _write(folder: Path, answers: Sequence[Answer], metrics: dict[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [asdict(answer) | {"is_right": answer.is_right} for answer in answers]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "results.parquet")
    (folder / "summary.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
