"""What a stage that ended well is told to have made: the same facts and metrics as the native engine's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen3_ops.mindspeed.observation import Observation
from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.success import hf_folder
from qwen3_ops.mindspeed.totals import Totals
from qwen3_ops.native.checkpoint.tracker import read_tracker
from qwen3_ops.verbs import Outcome


def outcome(request: Request, seen: Observation) -> Outcome:
    facts, metrics = {
        "train": _trained,
        "convert-ckpt": _converted,
        "preprocess-data": _prepared,
        "generate": _generated,
        "evaluate": _evaluated,
    }[request.verb](request, seen)
    return Outcome(kind=request.kind, facts=facts, metrics=metrics)


Told = tuple[Mapping[str, Any], Mapping[str, Any]]


def _trained(request: Request, seen: Observation) -> Told:
    totals = Totals.read(request.output) or Totals()
    facts = {
        **_layout(request),
        "iteration": request.train_iters,
        "params_dtype": _dtype(request),
        "seq_length": int(request.value("--seq-length") or 0),
        "stage": request.value("--stage") or "pretrain",
    }
    if (template := request.value("--prompt-type")) is not None:
        facts["prompt_type"] = template
    if request.lora_targets:
        facts |= {**_lora(request), "lora_ckpt_filter": request.has("--lora-ckpt-filter")}
    metrics = {
        "first_loss": totals.first_loss,
        "last_loss": totals.last_loss,
        "iterations": request.train_iters,
        "seconds": round(totals.seconds, 3),
        "trainable_parameters": totals.trainable_parameters,
        "max_allocated_mb": max((memory.max_allocated for memory in seen.memory.values()), default=None),
    }
    if seen.validation:
        metrics["validation_loss"] = seen.validation[-1].loss
    return facts, metrics


def _converted(request: Request, seen: Observation) -> Told:
    facts: dict[str, Any] = {"params_dtype": request.value("--params-dtype") or "fp16"}  # MindSpeed-LLM's own default
    if request.value("--save-model-type") == "hf":
        facts["model"] = str(hf_folder(request.output).relative_to(request.output))
    else:
        facts |= {**_layout(request), "iteration": read_tracker(request.output)}
    if request.value("--lora-r"):
        lora = _lora(request)
        facts["merged_lora"] = {"r": lora["lora_r"], "alpha": lora["lora_alpha"], "target_modules": sorted(lora["lora_target_modules"])}
    return facts, {"bytes": sum(path.stat().st_size for path in request.output.rglob("*") if path.is_file())}


def _prepared(request: Request, seen: Observation) -> Told:
    facts = {"handler_name": request.value("--handler-name"), "prompt_type": request.value("--prompt-type")}
    return facts, {"documents": seen.documents, "skipped": seen.skipped_documents}


def _generated(request: Request, seen: Observation) -> Told:
    texts = seen.texts.end()
    rows = (json.dumps(text._asdict(), ensure_ascii=False) for text in texts)
    (request.output / "generations.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    metrics = {"prompts": len(texts), "empty": sum(not text.text.strip() for text in texts), "seconds": seen.texts.seconds}
    return {"prompt_type": request.value("--prompt-type")}, metrics


def _evaluated(request: Request, seen: Observation) -> Told:
    assert seen.accuracy is not None  # success.py made sure
    metrics = {
        "accuracy": seen.accuracy.correct / max(seen.accuracy.questions, 1),
        "correct": seen.accuracy.correct,
        "questions": seen.accuracy.questions,
        "unanswered": sum(answer.predicted is None for answers in seen.subject_answers.values() for answer in answers),
        "per_subject": {
            name: {"correct": subject.correct, "questions": subject.questions, "accuracy": subject.correct / max(subject.questions, 1)}
            for name, subject in seen.subjects.items()
        },
    }
    (request.output / "summary.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_answers(request.output / "results.parquet", seen)
    facts = {
        "task": "mmlu",
        "protocol": "direct" if request.has("--no-chat-template") else "chat template",
        "max_new_tokens": int(request.value("--max-new-tokens") or 0),
    }
    return facts, metrics


def _write_answers(path: Path, seen: Observation) -> None:
    """A row per question, in the tool's own order; nothing where several ranks answered, whose lines have no order."""
    if any(answer.rank for answers in seen.subject_answers.values() for answer in answers):
        return
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "subject": name,
            "number": number,
            "correct": answer.correct,
            "predicted": answer.predicted,
            "is_right": answer.predicted is not None and answer.correct == answer.predicted,
        }
        for name, answers in seen.subject_answers.items()
        for number, answer in enumerate(answers)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _layout(request: Request) -> dict[str, Any]:
    return {"tp": request.layout.tensor_model_parallel_size, "pp": request.layout.pipeline_model_parallel_size}


def _lora(request: Request) -> dict[str, Any]:
    return {
        "lora_r": int(request.value("--lora-r") or 0),
        "lora_alpha": int(request.value("--lora-alpha") or 0),
        "lora_target_modules": request.lora_targets,
    }


def _dtype(request: Request) -> str:
    return "bf16" if request.has("--bf16") else "fp16" if request.has("--fp16") else "fp32"
