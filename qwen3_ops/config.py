"""RunConfig: what a user may ask for.

This one model is the Airflow form, the REST body and the command line's ``--set``. Fields
bear the names of the Megatron or MindSpeed-LLM flags they end in; model shapes are not
among them, because they are read from the model's own ``config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TargetModule = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
Handler = Literal["AlpacaStyleInstructionHandler", "SharegptStyleInstructionHandler", "GeneralPretrainHandler"]


def _field(section: str, title: str, description: str, **constraints: Any) -> Any:
    return Field(title=title, description=description, json_schema_extra={"section": section}, **constraints)


_DATA = "Model and data"
_LAYOUT = "Devices and layout"
_TRAINING = "Training"
_LORA = "LoRA"
_CHECKS = "Generation and evaluation"
_WHERE = "Where it runs"


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
    task_data_path: str = _field(_DATA, "MMLU folder", "Absolute path of the folder with *_test.csv.")
    output_root: str = _field(_DATA, "Output folder", "Absolute path; artifacts and runs are kept below it.")

    nproc_per_node: int = _field(_LAYOUT, "Devices per node", "NPUs per node that the layout is made for.", ge=1)
    nnodes: int = _field(_LAYOUT, "Nodes", "Number of nodes.", ge=1)
    tensor_model_parallel_size: int = _field(_LAYOUT, "Tensor parallel", "TP: cuts every layer.", ge=1)
    pipeline_model_parallel_size: int = _field(_LAYOUT, "Pipeline parallel", "PP: deals out the layers.", ge=1)
    context_parallel_size: int = _field(_LAYOUT, "Context parallel", "CP: cuts sequences.", ge=1)

    train_iters: int = _field(_TRAINING, "Iterations", "Optimizer steps.", ge=1)
    micro_batch_size: int = _field(_TRAINING, "Micro batch", "Records per device and pass.", ge=1)
    global_batch_size: int = _field(_TRAINING, "Global batch", "Records per optimizer step.", ge=1)
    seq_length: int = _field(_TRAINING, "Sequence length", "Tokens; longer records are cut.", ge=8)
    lr: float = _field(_TRAINING, "Learning rate", "Peak value.", gt=0)
    min_lr: float = _field(_TRAINING, "Least learning rate", "Value at the end of the decay.", ge=0)
    lr_decay_style: Literal["constant", "linear", "cosine"] = _field(_TRAINING, "Decay", "Shape of the learning rate.")
    lr_warmup_fraction: float = _field(_TRAINING, "Warm-up", "Part of the run with rising learning rate.", ge=0, lt=1)
    weight_decay: float = _field(_TRAINING, "Weight decay", "On matrices only.", ge=0)
    clip_grad: float = _field(_TRAINING, "Gradient clipping", "Largest global norm.", gt=0)
    adam_beta1: float = _field(_TRAINING, "Adam beta 1", "", ge=0, lt=1)
    adam_beta2: float = _field(_TRAINING, "Adam beta 2", "", ge=0, lt=1)
    seed: int = _field(_TRAINING, "Seed", "Of sample order and LoRA's start.", ge=0)
    split: str = _field(_TRAINING, "Split", "Shares of training, validation and test.", pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?){2}$")
    save_interval: int = _field(_TRAINING, "Save every", "Iterations; a crash loses at most that many.", ge=1)
    log_interval: int = _field(_TRAINING, "Log every", "Iterations.", ge=1)

    lora_r: int = _field(_LORA, "Rank", "", ge=1)
    lora_alpha: int = _field(_LORA, "Alpha", "The update is scaled by alpha / rank.", ge=1)
    lora_target_modules: tuple[TargetModule, ...] = _field(_LORA, "Target modules", "", min_length=1)

    max_new_tokens: int = _field(_CHECKS, "New tokens", "Of the generation check.", ge=1)
    max_eval_samples: int | None = _field(_CHECKS, "Questions per subject", "At most; empty for all.", ge=1, default=None)

    engine: Literal["native"] = _field(_WHERE, "Engine", "Who interprets a stage.")
    runtime: Literal["local"] = _field(_WHERE, "Runtime", "Where a stage's process lives.")


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One field of the form: ``schema`` is JSON schema and nullable (null: the recipe's value)."""

    name: str
    schema: dict[str, Any]
    default: Any
    title: str
    section: str
    description: str


def form_fields(*, recipes: dict[str, RunConfig], default_recipe: str) -> list[FormField]:
    """The form: ``recipe`` first, every other field optional and overriding it."""
    properties = RunConfig.model_json_schema()["properties"]
    fields = []
    for name, whole in properties.items():
        schema = {key: value for key, value in whole.items() if key not in ("title", "description", "section", "default")}
        if name == "recipe":
            schema = {"type": "string", "enum": sorted(recipes)}
            description, default = whole["description"], default_recipe
        else:
            schema = _nullable(schema)
            values = "; ".join(f"{recipe}: {_show(getattr(config, name))}" for recipe, config in sorted(recipes.items()))
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
