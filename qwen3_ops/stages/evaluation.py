"""Generation check and MMLU (runbook 4.4, 4.5, 5.5, 5.6)."""

from __future__ import annotations

from qwen3_ops.config import RunConfig
from qwen3_ops.model import ModelSpec
from qwen3_ops.stages.model_flags import layout_flags, model_flags
from qwen3_ops.stages.paths import Paths

_ANSWER_TOKENS = 2  # the runbook's --max-new-tokens: a letter, and what may stand before it


def generate(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *("--task", "greedy"),  # without it the real script ends in an interactive chat
        *_inference(run, model, paths),
        *("--max-new-tokens", str(run.max_new_tokens)),
    ]


def evaluate_mmlu(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    limit = [] if run.max_eval_samples is None else ["--max-eval-samples", str(run.max_eval_samples)]
    return [
        "--no-chat-template",
        *("--task-data-path", paths.tasks),
        *("--task", "mmlu"),
        *_inference(run, model, paths),
        *("--max-new-tokens", str(_ANSWER_TOKENS)),
        *limit,
    ]


def _inference(run: RunConfig, model: ModelSpec, paths: Paths) -> list[str]:
    return [
        *layout_flags(run),
        *("--load", paths.inputs["checkpoint"]),
        *model_flags(run, model, paths),
        *("--micro-batch-size", "1"),
        "--exit-on-missing-checkpoint",
        *("--seed", str(run.seed)),
    ]
