"""Some training steps of one candidate: this engine's or transformers'. Run as a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    from torch import Tensor, device

LR, BETAS, EPS, WEIGHT_DECAY, CLIP_GRAD = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0
_MATMUL = {"cpu": 1536}  # rows of the square matrices whose product is timed; 8192 on accelerators


class Work(BaseModel):
    """What to measure.

    Attributes:
        learnt: share of the tokens (the last of each row) that have a label.
        warm_up: steps before the timed ones; the first of them makes the optimizer's state.
    """

    candidate: Literal["ours", "transformers"]
    model: Path
    device: str
    dtype: Literal["fp32", "bf16"]
    rows: int
    length: int
    learnt: float
    steps: int
    warm_up: int
    seed: int


class Measured(BaseModel):
    """Of the timed steps: seconds, CPU seconds of the process, and each step's loss.

    Attributes:
        peak_mb: growth of the peak memory (10^6 bytes) from before the model was loaded; on an accelerator what its tensors took.
        matmul_tflops: of a large product of two matrices on the same device in the same dtype.
    """

    wall: float
    cpu: float
    peak_mb: float
    losses: list[float]
    matmul_tflops: float


def measure(work: Work) -> Measured:
    import torch
    from torch.optim import AdamW  # noqa: F401
    from transformers import Qwen3ForCausalLM  # noqa: F401  # imported by both candidates: neither's memory counts it

    if work.device.startswith("npu"):
        import torch_npu  # noqa: F401  # makes NPUs known to torch
    device = torch.device(work.device)
    before = _resident_mb()
    step = (_ours if work.candidate == "ours" else _transformers)(work, device)
    batches = _batches(work, device)
    losses = [step(*batches[number % len(batches)]) for number in range(work.warm_up)]
    _wait(device)
    started, cpu = time.perf_counter(), time.process_time()
    losses += [step(*batches[number % len(batches)]) for number in range(work.warm_up, work.warm_up + work.steps)]
    _wait(device)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = _peak_mb(device) - (before if device.type == "cpu" else 0.0)
    return Measured(wall=wall, cpu=cpu, peak_mb=peak, losses=[float(loss) for loss in losses], matmul_tflops=_matmul_tflops(work, device))


def _ours(work: Work, device: device) -> Callable[[Tensor, Tensor], Tensor]:
    """The steps of ``qwen3-ops train``: sliced cross-entropy; below fp32 with master weights."""
    import torch

    from qwen3_ops.bench.models import load_hf
    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.checkpoint.dtypes import as_torch_dtype
    from qwen3_ops.native.threads import choose_threads
    from qwen3_ops.native.training.loss import token_losses_mean
    from qwen3_ops.native.training.optimizer import AdamSettings, MixedPrecisionAdamW

    choose_threads(ModelSpec.from_hf(work.model))
    model = load_hf(work.model, dtype=as_torch_dtype(work.dtype), device=device)
    settings = AdamSettings(betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, clip_grad=CLIP_GRAD)
    optimizer = MixedPrecisionAdamW(model.train().named_parameters(), settings)

    def step(tokens: Tensor, labels: Tensor) -> Tensor:
        loss = token_losses_mean(model.hidden_states(tokens), model.output_weight, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(LR, norm=optimizer.gradient_norm())
        return torch.clone(loss.detach())

    return step


def _transformers(work: Work, device: device) -> Callable[[Tensor, Tensor], Tensor]:
    """transformers' Qwen3 with SDPA, whole fp32 logits, torch's fused AdamW; bf16 by autocast over fp32 weights, as its Trainer does."""
    import torch
    import torch.nn.functional as F
    from transformers import Qwen3ForCausalLM

    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.data.turns import IGNORE_INDEX
    from qwen3_ops.native.threads import choose_threads

    choose_threads(ModelSpec.from_hf(work.model))
    model = (
        Qwen3ForCausalLM.from_pretrained(work.model, dtype=torch.float32, attn_implementation="sdpa", use_cache=False).to(device).train()
    )
    groups = [
        {"params": [parameter for parameter in model.parameters() if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in model.parameters() if parameter.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, fused=True)

    def step(tokens: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=work.dtype == "bf16"):
            logits = model(tokens).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_GRAD)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _batches(work: Work, device: device) -> list[tuple[Tensor, Tensor]]:
    """Tokens and shifted labels, [rows, length] each; rows of full length, so that no candidate needs a mask."""
    import torch

    from qwen3_ops.model import ModelSpec
    from qwen3_ops.native.data.turns import IGNORE_INDEX

    vocabulary = ModelSpec.from_hf(work.model).padded_vocab_size
    generator = torch.Generator().manual_seed(work.seed)
    made = []
    for _ in range(4):
        tokens = torch.randint(0, vocabulary, (work.rows, work.length), generator=generator)
        labels = tokens.roll(-1, dims=1)
        labels[:, -1] = IGNORE_INDEX
        labels[:, : round(work.length * (1 - work.learnt))] = IGNORE_INDEX
        made.append((tokens.to(device), labels.to(device)))
    return made


def _matmul_tflops(work: Work, device: device) -> float:
    import torch

    size = _MATMUL.get(device.type, 8192)
    matrix = torch.ones(size, size, device=device, dtype=torch.bfloat16 if work.dtype == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        matrix @ matrix
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e12


def _wait(device: device) -> None:
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _resident_mb() -> float:
    """Resident memory now; where the system does not tell, the peak so far."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        return _own_peak_mb()
    return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6


def _own_peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _peak_mb(device: device) -> float:
    import torch

    if device.type == "cpu":
        return _own_peak_mb()
    module: Any = torch.get_device_module(device)
    return float(module.max_memory_allocated(device)) / 1e6


if __name__ == "__main__":
    print(measure(Work.model_validate_json(sys.argv[1])).model_dump_json())
