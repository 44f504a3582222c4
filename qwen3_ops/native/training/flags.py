"""Flags of ``train``: those of ``posttrain_gpt.py`` and ``pretrain_gpt.py``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from qwen3_ops.native.data.templates import TEMPLATES
from qwen3_ops.native.model_flags import ModelFlags

TargetModule = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
DecayStyle = Literal["constant", "linear", "cosine", "inverse-square-root", "WSD"]
WsdDecayStyle = Literal["exponential", "linear", "cosine"]


class FLAGS(ModelFlags):
    """One training run.

    Three modes: full fine-tuning (``--stage sft --is-instruction-dataset``), the same with
    ``--lora-r``, and pre-training (neither of the two).
    """

    INERT: ClassVar[dict[str, int]] = {
        **{flag: values for flag, values in ModelFlags.INERT.items() if flag != "--distributed-timeout-minutes"},
        "--use-distributed-optimizer": 0,
        "--overlap-grad-reduce": 0,
        "--overlap-param-gather": 0,
        "--accumulate-allreduce-grads-in-fp32": 0,  # always
        "--no-shared-storage": 0,
        "--lora-fusion": 0,
        "--exit-signal-handler": 0,  # SIGTERM always saves
        "--num-workers": 1,
        "--check-for-nan-in-loss-and-grad": 0,  # always
        "--tensorboard-queue-size": 1,
        "--timing-log-level": 1,
        "--npu-deterministic": 0,
        "--use-deter-comp": 0,
    }
    REFUSED: ClassVar[dict[str, str]] = {
        **ModelFlags.REFUSED,
        "--rampup-batch-size": "the batch size is constant",
        "--calculate-per-token-loss": "the loss is the mean over micro batches",
        "--no-check-for-nan-in-loss-and-grad": "the weights would become NaN; --nan-policy skip leaves such steps out",
        "--use-checkpoint-opt-param-scheduler": "give the run's own schedule again, or --override-opt-param-scheduler",
        "--start-weight-decay": "the weight decay is constant",
        "--end-weight-decay": "the weight decay is constant",
        "--weight-decay-incr-style": "the weight decay is constant",
        "--full-shuffle-instruction-dataset": "the order would not be that of --seed alone",
        "--decoupled-lr": "one learning rate serves all parameters",
        "--recompute-activation-function": "give --recompute-granularity full",
    }

    tokenizer_name_or_path: Path
    data_path: tuple[str, ...]
    data_cache_path: Path | None = None
    split: str = "969, 30, 1"
    stage: Literal["sft"] | None = None
    is_instruction_dataset: bool = False
    prompt_type: str | None = None
    variable_seq_lengths: bool = False
    pad_to_multiple_of: int = Field(default=8, ge=1)
    seq_length: int = Field(ge=1)
    reset_position_ids: bool = False
    reset_attention_mask: bool = False
    eod_mask_loss: bool = False
    padded_samples: bool = False
    no_shuffle: bool = False
    neat_pack: bool = False
    reproduce_loss_mask_defect: int | None = Field(
        default=None,
        ge=0,
        description="Pre-training as Megatron-LM 0.8.0 does it with that many data-loader workers (ours): where a label was the padding "
        "token, that position is left out of every later sample of the same worker. Only to repeat a curve of the real tool; "
        "as there, a resumed run forgets the damage.",
    )

    load: Path | None = None
    save: Path | None = None
    save_interval: int | None = Field(default=None, ge=1)
    keep_last: int | None = Field(
        default=None,
        ge=1,
        description="Keep that many of this trainer's checkpoints in --save and delete older ones (ours); all when not given.",
    )
    keep_best: bool = Field(
        default=False,
        description="Keep the checkpoint of the lowest validation loss as well (ours); needs a validation at every --save-interval.",
    )
    finetune: bool = False
    no_load_optim: bool = False
    no_load_rng: bool = False
    no_save_optim: bool = False
    no_save_rng: bool = False
    override_opt_param_scheduler: bool = False

    micro_batch_size: int = Field(ge=1)
    global_batch_size: int | None = Field(default=None, ge=1)
    train_iters: int | None = Field(default=None, ge=1)
    train_samples: int | None = Field(default=None, ge=1)
    use_torch_fsdp2: bool = False
    distributed_timeout_minutes: int = Field(default=60, ge=1)
    optimizer: Literal["adam"] = "adam"
    lr: float = Field(gt=0)
    min_lr: float = Field(default=0.0, ge=0)
    lr_decay_style: DecayStyle = "linear"
    lr_decay_iters: int | None = Field(default=None, ge=1)
    lr_decay_samples: int | None = Field(default=None, ge=1)
    lr_warmup_fraction: float | None = Field(default=None, ge=0, le=1)
    lr_warmup_iters: int = Field(default=0, ge=0)
    lr_warmup_samples: int = Field(default=0, ge=0)
    lr_warmup_init: float = Field(default=0.0, ge=0)
    lr_wsd_decay_style: WsdDecayStyle = "exponential"
    lr_wsd_decay_iters: int | None = Field(default=None, ge=1)
    lr_wsd_decay_samples: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_grad: float = Field(default=1.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_eps: float = Field(default=1e-8, gt=0)
    loss_scale: float | None = Field(default=None, gt=0)
    initial_loss_scale: float = Field(default=2.0**32, gt=0)
    min_loss_scale: float = Field(default=1.0, gt=0)
    loss_scale_window: int = Field(default=1000, ge=1)
    hysteresis: int = Field(default=2, ge=1)
    nan_policy: Literal["stop", "skip"] = Field(
        default="stop",
        description="A loss or gradient that is not a number ends the run, or its step is left out with a warning (ours).",
    )
    loss_spike_policy: Literal["warn", "stop", "off"] = Field(
        default="warn", description="What a loss far above the last ones does; the records of the batch are named (ours)."
    )
    loss_spike_deviations: float = Field(
        default=6.0, gt=0, description="A spike is that many (robust) standard deviations above the median of the last losses (ours)."
    )
    seed: int = Field(default=1234, ge=0)
    init_method_std: float = Field(default=0.02, gt=0)
    recompute_granularity: Literal["full", "selective"] | None = None
    recompute_method: Literal["uniform", "block"] | None = None
    recompute_num_layers: int | None = Field(default=None, ge=1)

    lora_r: int = Field(default=0, ge=0)
    lora_alpha: int = Field(default=32, ge=1)
    lora_target_modules: tuple[TargetModule, ...] = ()
    lora_load: Path | None = None
    lora_ckpt_filter: bool = False

    log_interval: int = Field(default=100, ge=1)
    log_throughput: bool = False
    eval_interval: int = Field(default=1000, ge=1)
    eval_iters: int = Field(default=100, ge=0)
    tensorboard_dir: Path | None = None
    tensorboard_log_interval: int = Field(default=1, ge=1)
    log_timers_to_tensorboard: bool = False
    log_memory_to_tensorboard: bool = False
    log_batch_size_to_tensorboard: bool = False
    log_validation_ppl_to_tensorboard: bool = False
    exit_duration_in_mins: int | None = Field(default=None, ge=1)
    exit_interval: int | None = Field(default=None, ge=1)

    @field_validator("prompt_type")
    @classmethod
    def _known_template(cls, value: str | None) -> str | None:
        if value is not None and value not in TEMPLATES:
            raise ValueError(f"no such template; there are {', '.join(sorted(TEMPLATES))}")
        return value

    @property
    def lora(self) -> bool:
        return bool(self.lora_target_modules)

    @property
    def batch_size(self) -> int:
        """Samples of one optimizer step."""
        return self.global_batch_size or self.micro_batch_size

    @property
    def micro_batches(self) -> int:
        """Micro batches of one step, of all processes together."""
        return self.batch_size // self.micro_batch_size

    @property
    def iterations(self) -> int:
        """Steps of the whole run."""
        return self.train_iters or (self.train_samples or 0) // self.batch_size

    @model_validator(mode="after")
    def _consistent(self) -> FLAGS:
        rules = {
            "--stage sft and --is-instruction-dataset belong together": (self.stage == "sft") == self.is_instruction_dataset,
            "--prompt-type is for instruction data": self.prompt_type is None or self.is_instruction_dataset,
            "--variable-seq-lengths is for instruction data": not self.variable_seq_lengths or self.is_instruction_dataset,
            "--reproduce-loss-mask-defect is for pre-training": self.reproduce_loss_mask_defect is None or not self.is_instruction_dataset,
            "--reproduce-loss-mask-defect: with --eod-mask-loss or --reset-* the mask of the original is whole": (
                self.reproduce_loss_mask_defect is None or not (self.eod_mask_loss or self.reset_position_ids or self.reset_attention_mask)
            ),
            "--data-path takes one prefix; blending is not supported": len(self.data_path) == 1,
            f"--seq-length {self.seq_length} exceeds --max-position-embeddings {self.max_position_embeddings}": (
                self.seq_length <= self.max_position_embeddings
            ),
            f"--global-batch-size {self.batch_size} is not divisible by --micro-batch-size {self.micro_batch_size}": (
                self.batch_size % self.micro_batch_size == 0
            ),
            f"--min-lr {self.min_lr} exceeds --lr {self.lr}": self.min_lr <= self.lr,
            "--save and --save-interval belong together": (self.save is None) == (self.save_interval is None),
            "--keep-last needs --save": self.keep_last is None or self.save is not None,
            "--keep-best needs --keep-last, --eval-iters and a --save-interval that is a multiple of --eval-interval": not self.keep_best
            or (self.keep_last is not None and self.eval_iters > 0 and (self.save_interval or 1) % self.eval_interval == 0),
            **self._length_rules(),
            "--neat-pack is for instruction data and needs --reset-position-ids": not self.neat_pack
            or (self.is_instruction_dataset and self.reset_position_ids),
            "--reset-attention-mask needs --reset-position-ids for instruction data": not self.reset_attention_mask
            or not self.is_instruction_dataset
            or self.reset_position_ids,
            "--padded-samples and --no-shuffle are for instruction data": self.is_instruction_dataset
            or not (self.padded_samples or self.no_shuffle),
            "--eod-mask-loss is for pre-training": not self.eod_mask_loss or not self.is_instruction_dataset,
            "--loss-scale is for --fp16": self.loss_scale is None or self.fp16,
            f"--min-loss-scale {self.min_loss_scale} exceeds --initial-loss-scale": self.min_loss_scale <= self.initial_loss_scale,
            "--recompute-granularity full needs --recompute-method": self.recompute_granularity != "full"
            or self.recompute_method is not None,
            "--lora-r and --lora-target-modules belong together": (self.lora_r > 0) == self.lora,
            "--lora-load and --lora-ckpt-filter are for LoRA": self.lora or not (self.lora_load or self.lora_ckpt_filter),
            "--lora-load needs the base model in --load": self.lora_load is None or self.load is not None,
            "LoRA needs trained weights in --load": not self.lora or self.load is not None,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    def _length_rules(self) -> dict[str, bool]:
        """A run is counted in iterations or in samples, its schedule in the same."""
        by_iterations = (self.lr_decay_iters, self.lr_warmup_iters, self.lr_wsd_decay_iters)
        by_samples = (self.lr_decay_samples, self.lr_warmup_samples, self.lr_wsd_decay_samples)
        return {
            "give one of --train-iters and --train-samples": (self.train_iters is None) != (self.train_samples is None),
            f"--train-samples {self.train_samples} is less than a step of {self.batch_size}": (self.train_samples or self.batch_size)
            >= self.batch_size,
            "--lr-*-iters are for --train-iters, give --lr-*-samples": self.train_samples is None or not any(by_iterations),
            "--lr-*-samples are for --train-samples, give --lr-*-iters": self.train_iters is None or not any(by_samples),
            "--lr-warmup-fraction excludes --lr-warmup-iters and --lr-warmup-samples": self.lr_warmup_fraction is None
            or not (self.lr_warmup_iters or self.lr_warmup_samples),
            "--lr-decay-style WSD needs --lr-wsd-decay-iters or --lr-wsd-decay-samples": self.lr_decay_style != "WSD"
            or (self.lr_wsd_decay_iters or self.lr_wsd_decay_samples) is not None,
        }
