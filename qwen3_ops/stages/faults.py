"""The runbook's known faults, script by script, and the habits of its scripts that the recipes do not share."""

from __future__ import annotations

from pathlib import PurePath

from qwen3_ops.numbers import show
from qwen3_ops.stages.blanks import is_pretraining
from qwen3_ops.stages.script import Fault, Habit, Site

_DEAD = "without effect: "

ROTARY_TWICE = Fault(
    flag="--use-rotary-position-embeddings",
    why=_DEAD + "the script has it twice",
    values=lambda site: (),
)
NORM_EPSILON = Fault(
    flag="--norm-epsilon",
    why="missing: training would norm with Megatron's 1e-5, evaluation and the exported model with the model's own value",
    values=lambda site: (show(site.model.norm_epsilon),),
)
MAX_POSITIONS = Fault(
    flag="--max-position-embeddings",
    why="the script gives the sequence length: a sequence longer than the model's own limit would go unnoticed",
    values=lambda site: (str(site.model.max_position_embeddings),),
)
MISSING_CHECKPOINT = Fault(
    flag="--exit-on-missing-checkpoint",
    why=_DEAD + "2.1.0 heeds it for distributed checkpoints only; the plan and the run look for the tracker themselves",
    values=lambda site: None,
    applies=lambda site: site.run.mindspeed_version == "2.1.0",
)
SEQUENCE_PARALLEL_ALONE = Fault(
    flag="--sequence-parallel",
    why=_DEAD + "Megatron switches it off without tensor parallelism",
    values=lambda site: None,
    applies=lambda site: site.run.tensor_model_parallel_size == 1,
)
LOSS_SCALE = Fault(
    flag="--initial-loss-scale",
    why=_DEAD + "losses are scaled in fp16 only",
    values=lambda site: None,
    applies=lambda site: site.model.params_dtype != "fp16",
)
ONE_NODE_SHARES = Fault(
    flag="--no-shared-storage",
    why=_DEAD + "there is one node",
    values=lambda site: None,
    applies=lambda site: site.run.nnodes == 1,
)
THROUGHPUT = Fault(
    flag="--log-throughput",
    why=_DEAD + "switched off with --variable-seq-lengths, and counted from --seq-length where it is not: too high",
    values=lambda site: None,
)
SLOW_TOKENIZER = Fault(
    flag="--tokenizer-not-use-fast",
    why="the data was prepared with the fast tokenizer; training must have the same",
    values=lambda site: None,
)
TENSORBOARD = Fault(
    flag="--tensorboard-dir",
    why="missing: no script writes the curves that the runbook shows",
    values=lambda site: (f"{PurePath(site.paths.output) / 'tensorboard'}",),
)
EXIT_SIGNAL = Fault(
    flag="--exit-signal-handler",
    why="missing: a stopped run would be killed without a checkpoint",
    values=lambda site: (),
)
LORA_ONLY = Fault(
    flag="--lora-ckpt-filter",
    why="missing: every save would hold the base weights again",
    values=lambda site: (),
)
COUNT_FROM_ZERO = Fault(
    flag="--finetune",
    why="missing: the converted checkpoint counts as iteration 1, so one step and the first batch would be left out",
    values=lambda site: (),
)
TASK = Fault(
    flag="--task",
    why="missing: the script ends in a chat that waits for a person",
    values=lambda site: ("greedy",),
)
ASKED_AS_TAUGHT = Fault(
    flag="--prompt-type",
    why="missing: a tuned model is asked in another form than it was taught, and may end its turn at once",
    values=lambda site: (site.run.prompt_type,),
    applies=lambda site: not is_pretraining(site.run),
)
PARAMS_DTYPE = Fault(
    flag="--params-dtype",
    why="missing: the converter would merge and store in fp16",
    values=lambda site: (site.model.params_dtype,),
)
BESIDE_BASE = Fault(
    flag="--save-dir",
    why="the runbook exports into the base model's own folder, full fine-tuning and LoRA both into mg2hf",
    values=lambda site: (_outside_the_model(site),),
    told=True,
)

ONE_SAVE = Habit(
    flag="--save-interval", field="save_interval", value=None, why="the script saves once, at the end: a crash would lose everything"
)
NOT_SEQUENCE_PARALLEL = Habit(
    flag="--sequence-parallel",
    field="sequence_parallel",
    value=False,
    why="missing: every tensor rank would hold the activations between its layers whole",
)
NOT_DISTRIBUTED = Habit(
    flag="--use-distributed-optimizer",
    field="use_distributed_optimizer",
    value=False,
    why="missing: a resumed run needs it, and data parallel ranks share the optimizer's memory",
)
UNSHARED = Habit(
    flag="--no-shared-storage",
    field="no_shared_storage",
    value=True,
    why="all nodes see the artifacts' folder; on one node the flag has no effect",
)
FRAGMENTS = Habit(
    flag="PYTORCH_NPU_ALLOC_CONF",
    field="pytorch_npu_alloc_conf",
    value=None,
    why="missing: fragments of freed device memory are not joined",
)
SHORT_TIMEOUT = Habit(
    flag="HCCL_CONNECT_TIMEOUT",
    field="hccl_connect_timeout",
    value=None,
    why="missing: ranks that start later than HCCL's 120 s would fail the run",
)

LLAMAS_TEMPLATE = Habit(
    flag="--prompt-type", field="prompt_type", value="llama2", why="llama2 is no dialogue format of Qwen's; every other command has qwen"
)

TRAINING = (MISSING_CHECKPOINT, SEQUENCE_PARALLEL_ALONE, LOSS_SCALE, ONE_NODE_SHARES, TENSORBOARD, EXIT_SIGNAL)
INFERENCE = (ROTARY_TWICE, MISSING_CHECKPOINT)


def _outside_the_model(site: Site) -> str:
    output, model = PurePath(site.paths.output), PurePath(site.paths.model)
    if output != model and model not in output.parents:
        return site.paths.output
    return str(PurePath(site.run.output_root) / "hf" / PurePath(site.paths.inputs["checkpoint"]).name)
