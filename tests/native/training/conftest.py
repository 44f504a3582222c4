"""The flags of the stored runs, and a way to run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qwen3_ops.events import Events
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.verb import run
from qwen3_ops.verbs import Context, Outcome

_MODEL = """
--num-layers 4 --hidden-size 64 --ffn-hidden-size 128 --num-attention-heads 8 --group-query-attention --num-query-groups 4 --kv-channels 16
--padded-vocab-size 512 --make-vocab-size-divisible-by 1 --max-position-embeddings 512 --qk-layernorm --normalization RMSNorm
--norm-epsilon 1e-6 --position-embedding-type rope --rotary-base 1000000 --swiglu --disable-bias-linear
--untie-embeddings-and-output-weights --hidden-dropout 0 --attention-dropout 0
"""
_TRAINING = """
--seq-length 512 --micro-batch-size 2 --global-batch-size 4 --train-iters 20 --lr 1e-3 --min-lr 1e-5 --lr-decay-style cosine
--lr-warmup-fraction 0.1 --weight-decay 0.1 --clip-grad 1.0 --adam-beta1 0.9 --adam-beta2 0.95 --seed 42 --split 100,0,0
--log-interval 1 --eval-iters 0
"""
RESTART = ("--finetune", "--no-load-optim", "--no-load-rng")
LORA = ["--lora-r", "16", "--lora-alpha", "32", "--lora-target-modules", "linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


class Edit:
    """Small changes of a command line."""

    @staticmethod
    def without(argv: list[str], *flags: str) -> list[str]:
        """``argv`` less some switches."""
        return [token for token in argv if token not in flags]

    @staticmethod
    def changed(argv: list[str], **values: object) -> list[str]:
        """``argv`` with the single values of flags exchanged or added."""
        result = list(argv)
        for name, value in values.items():
            flag = "--" + name.replace("_", "-")
            if flag in result:
                result[result.index(flag) + 1] = str(value)
            else:
                result += [flag, str(value)]
        return result

    @classmethod
    def resumed(cls, argv: list[str], **values: object) -> list[str]:
        """The command line that goes on where ``argv`` stopped."""
        return cls.changed(cls.without(argv, *RESTART), **values)


@pytest.fixture
def edit() -> Edit:
    return Edit()


@pytest.fixture
def lora() -> list[str]:
    return list(LORA)


class Recorder(Events):
    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def metric(self, *, step: int | None = None, **values: float) -> None:
        self.metrics.append({"iteration": step, **values})

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        self.messages.append(f"{level}: {message}")


@dataclass(frozen=True, kw_only=True)
class Run:
    outcome: Outcome
    events: Recorder

    def curve(self, name: str) -> dict[int, float]:
        return {row["iteration"]: row[name] for row in self.events.metrics if name in row}


@pytest.fixture
def train() -> Callable[[list[str]], Run]:
    def start(argv: list[str]) -> Run:
        events = Recorder()
        flags, _ = FLAGS.parse(argv)
        return Run(outcome=run(flags, Context(events=events)), events=events)

    return start


@pytest.fixture
def common(golden: Path, tokenizer_dir: Path) -> list[str]:
    return [
        *_MODEL.split(),
        *_TRAINING.split(),
        "--tokenizer-name-or-path",
        str(tokenizer_dir),
        "--load",
        str(golden / "ckpt" / "mg_tp1pp1"),
    ]


@pytest.fixture
def sft(common: list[str], golden: Path) -> list[str]:
    data = golden / "data" / "outputs" / "alpaca_mapkeys" / "d"
    mode = ["--stage", "sft", "--is-instruction-dataset", "--prompt-type", "qwen", "--variable-seq-lengths"]
    return [*common, *mode, "--data-path", str(data), *RESTART]


@pytest.fixture
def pretrain(common: list[str], golden: Path) -> list[str]:
    data = golden / "data" / "outputs" / "pretrain_parquet" / "d_text_document"
    return [*common, "--data-path", str(data), "--no-load-optim", "--no-load-rng"]


@pytest.fixture
def assert_curve(golden: Path) -> Callable[..., None]:
    """Loss, gradient norm and learning rate of every iteration against those of a stored run.

    ``grad_norm``: of the norms of a few iterations, where rounding may decide; the others' are within ``tolerance`` too.
    """

    def compare(run: Run, case: str, *, tolerance: float, grad_norm: float | None = None, until: int | None = None) -> None:
        rows = json.loads((golden / "train" / case / "metrics.json").read_text())["iterations"]
        wanted = {row["iteration"]: row for row in rows if until is None or row["iteration"] <= until}
        assert wanted
        for name, theirs, allowed in (
            ("lm_loss", "lm_loss", tolerance),
            ("grad_norm", "grad_norm", grad_norm or tolerance),
            ("learning_rate", "lr_logged", 1e-12),
        ):
            found = run.curve(name)
            assert until is not None or found.keys() == wanted.keys()
            apart = sorted(abs(found[iteration] - row[theirs]) for iteration, row in wanted.items())
            assert apart[-1] < allowed, f"{name} differs by {apart[-1]}"
            most = apart[: len(apart) * 4 // 5]
            assert most[-1] < tolerance, f"{name} differs by {most[-1]} in a fifth of the iterations"
        used = {row["iteration"]: row["lr_used"] for row in wanted.values()}  # that of a step is told with the step before
        assert all(run.curve("learning_rate")[iteration - 1] == used[iteration] for iteration in used if iteration - 1 in used)

    return compare


@pytest.fixture
def lora_checkpoint(golden: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes whole LoRA weights as a checkpoint beside the base's, for ``--lora-load``."""
    from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint

    def write(lora: dict[str, Any], *, base: str = "mg_tp1pp1", dtype: str = "fp32") -> Path:
        checkpoint = open_checkpoint(golden / "ckpt" / base)
        targets = tuple(LORA[LORA.index("--lora-target-modules") + 1 :])
        state = {
            name.replace(".weight", ".base_layer.weight") if name.split(".")[-2] in targets else name: tensor
            for name, tensor in checkpoint.full_state_dict().items()
        }
        folder = tmp_path / "initial_lora"
        write_checkpoint(
            folder, iteration=1, state=state | lora, model=checkpoint.model, layout=checkpoint.layout, dtype=dtype,
            lora_only=True, extra_args={"lora_alpha": 32},
        )  # fmt: skip
        return folder

    return write


@pytest.fixture
def initial_lora(golden: Path, lora_checkpoint: Callable[..., Path]) -> Path:
    """A LoRA checkpoint with the stored random A."""
    from safetensors.torch import load_file

    return lora_checkpoint(load_file(golden / "train" / "lora_fp32" / "initial_lora_rank0.safetensors"))
