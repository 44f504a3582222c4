"""The log line is MindSpeed-LLM's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qwen3_ops.model import ModelSpec
from qwen3_ops.native.training.log import StepReport, floating_point_operations, validation_lines

LINE = re.compile(
    r"iteration\s+(\d+)/\s*(\d+) \| consumed samples:\s+(\d+) \| elapsed time per iteration \(ms\): ([\d.]+) \|"
    r"(?: throughput per GPU \(TFLOP/s/GPU\): ([\d.]+) \|)? learning rate: ([\d.E+-]+) \|(?: decoupled learning rate: \S+ \|)?"
    r" global batch size:\s+(\d+) \|(.*?) loss scale: ([\d.]+) \|(?: grad norm: (\S+) \|)?"
    r".*skipped iterations:\s+(\d+) \| number of nan iterations:\s+(\d+)"
)


def report(**changes: object) -> StepReport:
    values: dict[str, object] = {
        "iteration": 7, "train_iters": 20, "consumed_samples": 28, "batch_size": 4, "seconds": 0.1547,
        "learning_rate": 5e-4, "lm_loss": 6.246308326721191, "grad_norm": 1.7542169,
    }  # fmt: skip
    return StepReport(**{**values, **changes})  # type: ignore[arg-type]


def test_readers_of_the_real_log_understand_it() -> None:
    match = LINE.search(report(teraflops=12.34).line())
    assert match is not None
    assert match.groups() == ("7", "20", "28", "154.7", "12.3", "5.000000E-04", "4", " lm loss: 6.246308E+00 |", "1.0", "1.754", "0", "0")


def test_every_stored_line_is_rendered_alike(golden: Path) -> None:
    rows = {row["iteration"]: row for row in json.loads((golden / "train" / "sft_full_fp32" / "metrics.json").read_text())["iterations"]}
    lines = [
        line for line in (golden / "train" / "sft_full_fp32" / "log_lines.txt").read_text().splitlines() if "| consumed samples" in line
    ]
    assert len(lines) == 20

    def timeless(line: str) -> str:
        return re.sub(r"^ \[[\d :-]+\]", "", re.sub(r"\(ms\): [\d.]+", "", line))

    for line in lines:
        match = LINE.search(line)
        assert match is not None
        row = rows[int(match[1])]
        mine = report(
            iteration=row["iteration"],
            consumed_samples=row["consumed_samples_before"] + 4,
            learning_rate=row["lr_logged"],
            lm_loss=row["lm_loss"],
            grad_norm=row["grad_norm"],
        )
        assert timeless(mine.line()) == timeless(line)


def test_validation_lines_are_the_stored_ones(golden: Path) -> None:
    stored = (golden / "train" / "sft_eval_tb" / "log_lines.txt").read_text()
    points = json.loads((golden / "train" / "sft_eval_tb" / "tensorboard_scalars.json").read_text())["lm loss validation"]
    for (iteration, loss), part in zip(points, (None, None, "validation"), strict=True):
        assert validation_lines(iteration, loss, part=part) in stored


def test_floating_point_operations_equal_megatrons_count() -> None:
    """185220464640 is what the stored run's checkpoint says after 20 iterations."""
    spec = ModelSpec(
        model_type="qwen3", num_layers=4, hidden_size=64, ffn_hidden_size=128, num_attention_heads=8, num_query_groups=4,
        kv_channels=16, padded_vocab_size=512, rotary_base=1_000_000, norm_epsilon=1e-6, max_position_embeddings=512,
        untie_embeddings_and_output_weights=True, params_dtype="fp32",
    )  # fmt: skip
    assert 20 * floating_point_operations(spec, batch_size=4, seq_length=512) == pytest.approx(185_220_464_640, rel=1e-12)
