"""Where a run begins: its weights, its optimizer and its position, from what ``--load`` and ``--lora-load`` hold."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.dtypes import as_torch_dtype
from qwen3_ops.native.checkpoint.mcore import McoreCheckpoint, open_checkpoint, read_tracker
from qwen3_ops.native.checkpoint.tracker import iteration_folder
from qwen3_ops.native.model import Qwen3, copy_state
from qwen3_ops.native.training.checkpointing import OPTIMIZER, load_tensors, restore_rng
from qwen3_ops.native.training.distributed import World
from qwen3_ops.native.training.flags import FLAGS
from qwen3_ops.native.training.lora import add_lora, draw_lora, load_lora, split_lora
from qwen3_ops.native.training.loss_scale import LossScale
from qwen3_ops.native.training.optimizer import MixedPrecisionAdamW
from qwen3_ops.native.training.position import Position, Totals
from qwen3_ops.native.training.schedule import Schedule
from qwen3_ops.native.training.sharding import assign, shard
from qwen3_ops.native.training.trainer_state import TrainerState, sample_order


def refuse_overwriting(flags: FLAGS) -> None:
    """Raises BadInput when ``--save`` holds a run that this one does not continue."""
    if flags.save is None or read_tracker(flags.save) is None:
        return
    source = flags.lora_load or flags.load
    if flags.finetune or source is None or source.resolve() != flags.save.resolve():
        raise BadInput(
            "--save already holds a trained checkpoint",
            value=flags.save,
            source="--save",
            remedy="Choose another folder, or continue that run: load from it, without --finetune.",
        )


def remove_leftovers(flags: FLAGS) -> None:
    """Delete what a save that was killed left under a temporary name."""
    if flags.save is not None:
        for leftover in (*flags.save.glob(".iter_*.tmp"), *flags.save.glob(".iter_*.old")):
            shutil.rmtree(leftover)


def load_model(flags: FLAGS, *, world: World, events: Events) -> tuple[Qwen3, McoreCheckpoint | None]:
    """The model with its starting weights, and the checkpoint that the run continues (None: from scratch).

    Raises:
        BadInput: no checkpoint where one is named, or one that does not fit the flags.
    """
    model = _without_weights(flags, world)
    if flags.load is None:
        events.log(f"no --load: the weights are drawn at random from seed {flags.seed}")
        draw_weights(model, std=flags.init_method_std, seed=flags.seed)
        return model, None
    source = _open(flags.load, flags, events)
    base, adapter = split_lora(source.state(padded=True))
    if adapter and not flags.lora:
        raise BadInput(
            "the checkpoint holds LoRA weights", value=flags.load, source="--load", remedy="Merge it first, or give the LoRA flags."
        )
    own, _ = split_lora(model.state_dict())
    copy_state(own, base, copy=assign)
    if flags.lora:
        if flags.lora_load is not None:
            source = _open(flags.lora_load, flags, events)
            _, adapter = split_lora(source.state())
            if not adapter:
                raise BadInput("the checkpoint holds no LoRA weights", value=flags.lora_load, source="--lora-load")
        if adapter:
            _check_alpha(source, flags)
        load_lora(model, adapter or draw_lora(model, flags), source=source.folder)
    return model, source


def _without_weights(flags: FLAGS, world: World) -> Qwen3:
    """The model on its device, in parts where the flags ask for it; no time is spent on drawing numbers."""
    dtype = as_torch_dtype(flags.params_dtype_name)
    kept = torch.float32 if flags.use_torch_fsdp2 else dtype
    with torch.device("meta"):
        model = Qwen3(flags.model_spec(), dtype=kept)
    if flags.lora:
        add_lora(model, flags)
    if flags.use_torch_fsdp2:
        shard(model, world, dtype=dtype)
    return model.to_empty(device=world.device)


def restore(
    source: McoreCheckpoint | None,
    *,
    flags: FLAGS,
    optimizer: MixedPrecisionAdamW,
    schedule: Schedule,
    scale: LossScale,
    device: torch.device,
    events: Events,
) -> tuple[Position, Totals]:
    """Set optimizer and generators as the flags ask and return where the run goes on and what it did so far.

    Raises:
        BadInput: the state to continue from is missing, or made with another schedule.
    """
    if source is None or flags.finetune:
        return Position(), Totals()
    folder = iteration_folder(source.folder, source.iteration)
    state = TrainerState.read(folder)
    if source.iteration > flags.iterations:
        raise BadInput("the checkpoint is past --train-iters", value=f"{source.iteration} > {flags.iterations}", source=folder)
    position = Position(iteration=source.iteration, consumed_samples=source.iteration * flags.batch_size)
    if state is not None:
        position.consumed_samples = state.consumed_train_samples
        _compare_order(state, flags, folder=folder, events=events)
    if not flags.no_load_optim:
        if state is None or not (folder / OPTIMIZER).is_file():
            raise BadInput(
                "there is no optimizer state to continue with",
                value=folder / OPTIMIZER,
                remedy="Give --finetune for a new start, or --no-load-optim to go on with a new optimizer.",
            )
        _compare_schedule(state, schedule, flags, folder=folder)
        optimizer.load(load_tensors(folder / OPTIMIZER), source=folder / OPTIMIZER)
        scale.restore(state.loss_scale)
        position.schedule_samples = state.schedule_samples
    elif position.iteration:
        events.warning(
            f"--no-load-optim without --finetune: iteration {position.iteration + 1} starts with a new optimizer and learning-rate schedule"
        )
    if not flags.no_load_rng:
        restore_rng(folder, device)
    events.log(f"going on after iteration {position.iteration}, {position.consumed_samples} samples consumed")
    return position, state.totals if state is not None else Totals()


def draw_weights(model: Qwen3, *, std: float, seed: int) -> None:
    """Megatron's initialisation: normal, the layers that write into the residual stream narrower by sqrt(2 * layers)."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    residual = std / math.sqrt(2 * model.spec.num_layers)
    for name, parameter in model.named_parameters():
        drawn = torch.ones(parameter.shape)
        if parameter.dim() > 1:
            drawn.normal_(std=residual if name.endswith(("linear_proj.weight", "linear_fc2.weight")) else std, generator=generator)
        assign(parameter, drawn)


def _open(folder: Path, flags: FLAGS, events: Events) -> McoreCheckpoint:
    checkpoint = open_checkpoint(folder)
    if checkpoint.layout != flags.layout:
        raise BadInput(
            "the checkpoint's layout is not the flags'",
            value=f"{checkpoint.layout}, flags: {flags.layout}",
            source=folder,
            remedy="Convert it to the layout of the run, or set --tensor- and --pipeline-model-parallel-size to its own.",
        )
    if not math.isclose(checkpoint.model.norm_epsilon, flags.norm_epsilon):
        events.warning(
            f"--norm-epsilon is {flags.norm_epsilon}, but {folder} was made with {checkpoint.model.norm_epsilon}: another model is trained"
        )
    print(f"  successfully loaded checkpoint from {folder} [ t 0, p 0 ] at iteration {checkpoint.iteration}", flush=True)
    return checkpoint


def _check_alpha(source: McoreCheckpoint, flags: FLAGS) -> None:
    alpha = getattr(source.args, "lora_alpha", None)
    if alpha is not None and alpha != flags.lora_alpha:
        raise BadInput("--lora-alpha is not the checkpoint's", value=f"{flags.lora_alpha}, checkpoint: {alpha}", source=source.folder)


def _compare_schedule(state: TrainerState, schedule: Schedule, flags: FLAGS, *, folder: Path) -> None:
    if flags.override_opt_param_scheduler:
        return
    now = schedule.state()
    changed = [f"{name}: {state.schedule.get(name)} -> {value}" for name, value in now.items() if state.schedule.get(name) != value]
    if changed:
        raise BadInput(
            "the learning-rate schedule is not that of the run being continued",
            value="; ".join(changed),
            source=folder,
            remedy="Take over its flags, or give --override-opt-param-scheduler to use the new ones.",
        )


def _compare_order(state: TrainerState, flags: FLAGS, *, folder: Path, events: Events) -> None:
    now = sample_order(flags)
    changed = [f"{name} {old} -> {now.get(name)}" for name, old in state.sample_order.items() if now.get(name) != old]
    if changed:
        events.warning(f"the samples are not in the order of the run in {folder}, some may be seen twice or never: {', '.join(changed)}")
