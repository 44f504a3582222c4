"""RunConfig: what a user may ask for.

This one model is the Airflow form, the REST body and the command line's ``--set``. Fields
bear the names of the Megatron or MindSpeed-LLM flags they end in; model shapes are not
among them, because they are read from the model's own ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from qwen3_ops.numbers import Real

TargetModule = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
Engine = Literal["native", "mindspeed"]
MindspeedVersion = Literal["2.1.0", "26.0.0"]
Fidelity = Literal["mended", "runbook"]
ContextParallelAlgo = Literal["ulysses_cp_algo", "megatron_cp_algo", "hybrid_cp_algo"]
Handler = Literal["AlpacaStyleInstructionHandler", "SharegptStyleInstructionHandler", "GeneralPretrainHandler"]


def _split(value: Any) -> Any:
    """``a,b`` on a command line is a list."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Hosts = Annotated[tuple[str, ...], BeforeValidator(_split)]
TargetModules = Annotated[tuple[TargetModule, ...], BeforeValidator(_split)]


def _field(section: str, title: str, description: str, **constraints: Any) -> Any:
    return Field(title=title, description=description, json_schema_extra={"section": section}, **constraints)


_DATA = "Model and data"
_LAYOUT = "Devices and layout"
_TRAINING = "Training"
_LORA = "LoRA"
_CHECKS = "Generation and evaluation"
_WHERE = "Where it runs"
_MINDSPEED = "MindSpeed-LLM"


class RunConfig(BaseModel):
    """One run, complete: every value is set. Recipes make it, a request overrides fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = _field(_DATA, "Recipe", "Named set of values that the other fields override.")
    model_dir: str = _field(_DATA, "Model folder", "Absolute path of the Hugging Face folder; only ever read.")
    input: str = _field(_DATA, "Training data", "Absolute path of a data file, or of a folder of files of one format.")
    handler_name: Handler = _field(_DATA, "Data format", "How records are read.")
    map_keys: str | None = _field(_DATA, "Column mapping", "JSON as in --map-keys; empty for the handler's own columns.", default=None)
    prompt_type: str = _field(_DATA, "Template", "Conversation template, the same in preparation and training.")
    workers: int = _field(_DATA, "Workers", "Processes that prepare data.", ge=1)
    data_shards: int = _field(
        _DATA, "Data shards", "Parts of the data that Airflow prepares side by side and joins; 1 for none.", ge=1, le=1000, default=1
    )
    task_data_path: str = _field(_DATA, "MMLU folder", "Absolute path of the folder with *_test.csv.")
    output_root: str = _field(_DATA, "Output folder", "Absolute path; artifacts and runs are kept below it.")

    load: str | None = _field(
        _DATA, "Megatron checkpoint", "Absolute path of one to start from in the place of the model folder's weights.", default=None
    )

    nproc_per_node: int = _field(_LAYOUT, "Devices per node", "NPUs per node that the layout is made for.", ge=1)
    nnodes: int = _field(_LAYOUT, "Nodes", "Number of nodes.", ge=1)
    tensor_model_parallel_size: int = _field(_LAYOUT, "Tensor parallel", "TP: cuts every layer.", ge=1)
    pipeline_model_parallel_size: int = _field(_LAYOUT, "Pipeline parallel", "PP: deals out the layers.", ge=1)
    context_parallel_size: int = _field(_LAYOUT, "Context parallel", "CP: cuts sequences.", ge=1)

    expert_model_parallel_size: int = _field(_LAYOUT, "Expert parallel", "EP: deals out the experts of a mixture.", ge=1, default=1)
    num_layers_per_virtual_pipeline_stage: int | None = _field(
        _LAYOUT, "Layers per virtual stage", "Smaller pipeline bubble; empty for one chunk a stage.", ge=1, default=None
    )
    context_parallel_algo: ContextParallelAlgo = _field(_LAYOUT, "Context parallel algorithm", "", default="ulysses_cp_algo")
    sequence_parallel: bool = _field(_LAYOUT, "Sequence parallel", "Cuts activations between layers over tensor ranks.", default=True)
    use_distributed_optimizer: bool = _field(
        _LAYOUT, "Distributed optimizer", "Cuts the optimizer's state over data parallel ranks.", default=True
    )
    recompute_granularity: Literal["full", "selective"] | None = _field(
        _LAYOUT, "Recompute", "Activations computed again in the backward pass, which saves memory; empty for none.", default=None
    )
    recompute_method: Literal["uniform", "block"] = _field(_LAYOUT, "Recompute method", "Of full recomputation.", default="uniform")
    recompute_num_layers: int = _field(_LAYOUT, "Recomputed layers", "Of full recomputation: layers of one unit.", ge=1, default=1)
    device_memory: float = _field(
        _LAYOUT, "Device memory", "HBM of one device in GiB, which the plan's estimate must fit.", gt=0, default=64
    )

    train_iters: int = _field(_TRAINING, "Iterations", "Optimizer steps.", ge=1)
    micro_batch_size: int = _field(_TRAINING, "Micro batch", "Records per device and pass.", ge=1)
    global_batch_size: int = _field(_TRAINING, "Global batch", "Records per optimizer step.", ge=1)
    seq_length: int = _field(_TRAINING, "Sequence length", "Tokens; longer records are cut.", ge=8)
    lr: Real = _field(_TRAINING, "Learning rate", "Peak value.", gt=0)
    min_lr: Real = _field(_TRAINING, "Least learning rate", "Value at the end of the decay.", ge=0)
    lr_decay_style: Literal["constant", "linear", "cosine"] = _field(_TRAINING, "Decay", "Shape of the learning rate.")
    lr_warmup_fraction: Real = _field(_TRAINING, "Warm-up", "Part of the run with rising learning rate.", ge=0, lt=1)
    weight_decay: Real = _field(_TRAINING, "Weight decay", "On matrices only.", ge=0)
    clip_grad: Real = _field(_TRAINING, "Gradient clipping", "Largest global norm.", gt=0)
    adam_beta1: Real = _field(_TRAINING, "Adam beta 1", "", ge=0, lt=1)
    adam_beta2: Real = _field(_TRAINING, "Adam beta 2", "", ge=0, lt=1)
    seed: int = _field(_TRAINING, "Seed", "Of sample order and LoRA's start.", ge=0)
    split: str = _field(_TRAINING, "Split", "Shares of training, validation and test.", pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?){2}$")
    save_interval: int | None = _field(
        _TRAINING, "Save every", "Iterations; a crash loses at most that many. Empty: once, at the end.", ge=1
    )
    keep_last: int | None = _field(_TRAINING, "Keep", "Last checkpoints of a training; empty for all.", ge=1, default=None)
    step_seconds: float | None = _field(
        _TRAINING, "Seconds per iteration", "As measured before; the plan reckons the run's time from it.", gt=0, default=None
    )
    log_interval: int = _field(_TRAINING, "Log every", "Iterations.", ge=1)

    lora_r: int = _field(_LORA, "Rank", "", ge=1)
    lora_alpha: int = _field(_LORA, "Alpha", "The update is scaled by alpha / rank.", ge=1)
    lora_target_modules: TargetModules = _field(_LORA, "Target modules", "", min_length=1)

    max_new_tokens: int = _field(_CHECKS, "New tokens", "Of the generation check.", ge=1)
    max_eval_samples: int | None = _field(_CHECKS, "Questions per subject", "At most; empty for all.", ge=1, default=None)

    engine: Engine = _field(_WHERE, "Engine", "Who interprets training, generation and evaluation.")
    cpu_engine: Engine = _field(_WHERE, "Engine without NPUs", "Who interprets conversion, data preparation and merging.", default="native")
    runtime: Literal["local", "docker"] = _field(_WHERE, "Runtime", "Where a stage's process lives.")

    mindspeed_dir: str = _field(
        _MINDSPEED, "MindSpeed-LLM", "Absolute path of its folder in the container.", default="/apps/hw/src/llm-qwen3/MindSpeed-LLM"
    )
    mindspeed_version: MindspeedVersion = _field(_MINDSPEED, "Version of MindSpeed-LLM", "Whose flags are rendered.", default="2.1.0")
    fidelity: Fidelity = _field(
        _MINDSPEED, "Fidelity", "runbook: its commands as they stand; mended: without their known faults.", default="mended"
    )
    hosts: Hosts = _field(_MINDSPEED, "Hosts", "Addresses of the nodes, the master first; empty: this host alone.", default=())
    no_shared_storage: bool = _field(_MINDSPEED, "No shared storage", "Nodes see different disks below the same paths.", default=False)
    master_port: int = _field(_MINDSPEED, "Master port", "Free on the master; outside HCCL's ports.", ge=1, le=65535, default=6015)
    hccl_if_base_port: int | None = _field(
        _MINDSPEED, "HCCL base port", "First of its ports on a host; empty for HCCL's own, 60000.", ge=1024, le=65520, default=None
    )
    hccl_connect_timeout: int | None = _field(
        _MINDSPEED,
        "HCCL connect timeout",
        "Seconds that ranks wait for each other; empty for HCCL's own, 120.",
        ge=120,
        le=7200,
        default=1800,
    )
    socket_ifname: str | None = _field(
        _MINDSPEED, "Network interface", "Of the host, for HCCL and gloo; needed on several nodes.", default=None
    )
    tensorboard_port: int = _field(_MINDSPEED, "TensorBoard's port", "Inside the container.", ge=1, le=65535, default=3000)
    pytorch_npu_alloc_conf: str | None = _field(_MINDSPEED, "NPU allocator", "PYTORCH_NPU_ALLOC_CONF.", default="expandable_segments:True")


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One field of the form: ``schema`` is JSON schema and nullable (null: the recipe's value)."""

    name: str
    schema: dict[str, Any]
    default: Any
    title: str
    section: str
    description: str


def form_fields(*, recipes: Mapping[str, RunConfig], default_recipe: str, shown: Sequence[str]) -> list[FormField]:
    """The form: ``recipe`` first, every other field optional and overriding it.

    Args:
        shown: recipes whose values the descriptions tell.
    """
    properties = RunConfig.model_json_schema()["properties"]
    fields = []
    for name, whole in properties.items():
        schema = {key: value for key, value in whole.items() if key not in ("title", "description", "section", "default")}
        if name == "recipe":
            schema = {"type": "string", "enum": sorted(recipes)}
            description, default = whole["description"], default_recipe
        else:
            schema = _nullable(schema)
            values = "; ".join(f"{recipe}: {_show(getattr(recipes[recipe], name))}" for recipe in shown)
            description, default = f"{whole['description']} Empty for the recipe's value ({values}).".strip(), None
        fields.append(
            FormField(name=name, schema=schema, default=default, title=whole["title"], section=whole["section"], description=description)
        )
    return fields


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:  # already optional: flatten to one type list, which the form understands
        (inner,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        schema = {**inner, **{key: value for key, value in schema.items() if key != "anyOf"}}
    if "const" in schema:
        schema = {**{key: value for key, value in schema.items() if key != "const"}, "enum": [schema["const"]]}
    if "enum" in schema:
        schema = {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
