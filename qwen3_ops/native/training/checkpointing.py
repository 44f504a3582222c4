"""Saving a run so that it can go on: weights as MindSpeed-LLM stores them, and our own state beside them.

``SAVE/iter_0000100/`` holds ``mp_rank_*`` (weights, in mcore's format) and

- ``trainer_state.json``: see trainer_state.py;
- ``optimizer.safetensors``: ``exp_avg.NAME``, ``exp_avg_sq.NAME``, ``step.NAME``, ``master.NAME`` (see optimizer.py);
- ``rng.safetensors``: state of torch's generators, uint8.

The folder appears by one rename when all of it is written, then the tracker names it: a run that
is killed at any moment leaves the last complete iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwen3_ops.artifacts import sync, write_atomically
from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.mcore import write_checkpoint
from qwen3_ops.native.model import Qwen3
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.lora import is_lora
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW
from qwen3_ops.native.training.position import Position, Totals
from qwen3_ops.native.training.retention import delete_older
from qwen3_ops.native.training.schedule import Schedule
from qwen3_ops.native.training.sharding import whole
from qwen3_ops.native.training.trainer_state import TRAINER_STATE, TrainerState, sample_order

OPTIMIZER = "optimizer.safetensors"
RNG = "rng.safetensors"


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes checkpoints of a run into ``--save``; called by all its processes, the first of which writes."""

    folder: Path
    flags: FLAGS
    model: Qwen3
    optimizer: MixedPrecisionAdamW
    schedule: Schedule
    scale: LossScale
    world: World
    events: Events

    def save(self, position: Position, totals: Totals) -> None:
        """Publish the next iteration, then delete those that ``--keep-last`` and ``--keep-best`` do not keep.

        The first process has all of the weights and of the optimizer's state in its host memory meanwhile.
        """
        written = ((name, tensor) for name, tensor in self.model.state_dict().items() if is_lora(name) or not self.flags.lora_ckpt_filter)
        weights = self._first_keeps((name, whole(tensor)) for name, tensor in written)
        moments = {} if self.flags.no_save_optim else self._first_keeps(self.optimizer.state())
        self.world.first_alone(lambda: self._write(position, totals, weights, moments))

    def _first_keeps(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """In host memory; the other processes only help to make them whole."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors if self.world.first}

    def _write(self, position: Position, totals: Totals, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        flags, folder = self.flags, self.folder
        state = TrainerState(
            iteration=position.iteration,
            consumed_train_samples=position.consumed_samples,
            schedule_samples=position.schedule_samples,
            schedule=self.schedule.state(),
            sample_order=sample_order(flags),
            totals=totals,
            loss_scale=self.scale.state(),
        )

        def write_state(iteration_folder: Path) -> None:
            write_atomically(iteration_folder / TRAINER_STATE, state.model_dump_json(indent=2) + "\n")
            if not flags.no_save_optim:
                _save_tensors(moments, iteration_folder / OPTIMIZER)
            if not flags.no_save_rng:
                _save_tensors(rng_state(self.world.device), iteration_folder / RNG)

        print(f"saving checkpoint at iteration {position.iteration:7d} to {folder} in torch format", flush=True)
        write_checkpoint(
            folder,
            iteration=position.iteration,
            state=weights,
            model=self.model.spec,
            layout=flags.layout,
            dtype=flags.params_dtype_name,
            extra_args=_args(flags, position),
            lora_only=flags.lora_ckpt_filter,
            beside=write_state,
        )
        print(f"  successfully saved checkpoint from iteration {position.iteration:7d} to {folder}", flush=True)
        self.events.emit("checkpoint", iteration=position.iteration, folder=str(folder))
        if flags.keep_last is not None:
            delete_older(folder, newest=position.iteration, keep_last=flags.keep_last, keep_best=flags.keep_best)


def _args(flags: FLAGS, position: Position) -> dict[str, object]:
    """Fields of the checkpoint's ``args`` that say how it was trained."""
    args: dict[str, object] = {
        "consumed_train_samples": position.consumed_samples,
        "seq_length": flags.seq_length,
        "train_iters": flags.iterations,
        "micro_batch_size": flags.micro_batch_size,
        "global_batch_size": flags.batch_size,
        "lr": flags.lr,
        "min_lr": flags.min_lr,
        "lr_decay_style": flags.lr_decay_style,
        "seed": flags.seed,
    }
    if flags.lora:
        args |= {"lora_alpha": flags.lora_alpha, "lora_target_modules": list(flags.lora_target_modules)}
    return args


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Of torch's generators: ``cpu``, and the device's by its type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_rng(iteration_folder: Path, device: torch.device) -> None:
    """Set the generators as they were; nothing where no state was saved."""
    path = iteration_folder / RNG
    if not path.is_file():
        return
    states = load_tensors(path)
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def load_tensors(path: Path) -> Mapping[str, Tensor]:
    """Raises BadInput where the file is damaged."""
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput("the file can not be read", value=error, source=path, remedy="Use an older iteration.") from error
    return tensors


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # what the operating system said is only in its text
        raise Infrastructure("the trainer's state can not be written", value=error, source=path, remedy="Is the disk full?") from error
    sync(path)
