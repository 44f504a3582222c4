"""What each engine can do, and what it needs to be there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.rules.registry import rule
from qwen3_ops.stages import STAGES
from qwen3_ops.verbs import VERBS


@rule("context_parallel_size", "num_layers_per_virtual_pipeline_stage", "engine", about="devices")
def native_engine_can(run: RunConfig, model: ModelSpec) -> Iterator[Finding]:
    limits = {
        "context_parallel_size": ("the native engine computes whole sequences", run.context_parallel_size != 1, "set it to 1"),
        "num_layers_per_virtual_pipeline_stage": (
            "the native engine has no virtual pipeline stages",
            run.num_layers_per_virtual_pipeline_stage is not None,
            "leave it empty",
        ),
        "model_dir": ("the native engine trains and runs dense models only", model.num_experts is not None, "set engine to mindspeed"),
    }
    for field, (text, broken, remedy) in limits.items():
        if broken and run.engine == "native":
            yield Finding(
                rule=text,
                fields=(field, "engine"),
                values=f"{field} = {getattr(run, field)}, engine = native",
                consequence="training would refuse the flag",
                remedy=remedy,
            )


@rule("engine", "cpu_engine", "runtime", "mindspeed_dir")
def mindspeed_is_there(run: RunConfig, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    folder = Path(run.mindspeed_dir)
    on_devices = {VERBS[STAGES[stage.stage].verb].on_devices for stage in stages if stage.stage in STAGES}
    parts = (("posttrain_gpt.py", run.engine, True), ("preprocess_data.py", run.cpu_engine, False))
    wanted = [name for name, engine, devices in parts if engine == "mindspeed" and devices in on_devices]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if not folder.is_absolute() or (missing and run.runtime == "local"):
        yield Finding(
            rule="mindspeed_dir must be the absolute path of MindSpeed-LLM's folder",
            fields=("mindspeed_dir",),
            values=f"{folder} {'is not absolute' if not folder.is_absolute() else 'lacks ' + ', '.join(missing)}",
            consequence="no command could be started",
            remedy="set mindspeed_dir, run inside the Ascend container, or set engine to native",
        )


@rule("engine", "cpu_engine", "mindspeed_version", "mindspeed_dir", "prompt_type", "handler_name")
def template_is_in_this_version(run: RunConfig) -> Iterator[Finding]:
    if "mindspeed" not in (run.engine, run.cpu_engine) or run.handler_name == "GeneralPretrainHandler":
        return
    path = Path(run.mindspeed_dir) / "configs" / "finetune" / "templates.json"
    known = _templates(path)
    lacks = run.prompt_type not in known if known else run.mindspeed_version == "2.1.0" and run.prompt_type == "qwen3"
    if lacks:
        yield Finding(
            rule="prompt_type must be in MindSpeed-LLM's configs/finetune/templates.json",
            fields=("prompt_type", "mindspeed_version"),
            values=f"prompt_type = {run.prompt_type}, which {path if known else '2.1.0 accepts on the command line but'} does not have",
            consequence=f"the script ends with 'Template {run.prompt_type} does not exist.'",
            remedy="choose qwen, or a newer MindSpeed-LLM",
        )


def _templates(path: Path) -> set[str]:
    """Names in MindSpeed-LLM's own list; none where it is not on this machine, or is no such list."""
    try:
        return {template["name"] for template in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


@rule("cpu_engine", "mindspeed_version", "load")
def converters_understand_each_other(run: RunConfig, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    if run.cpu_engine != "mindspeed" or run.mindspeed_version == "2.1.0":
        return
    if any(stage.stage == "merge_lora" for stage in stages):
        yield Finding(
            rule="a merge into a Megatron checkpoint should be made by the native engine",
            fields=("cpu_engine", "mindspeed_version"),
            values=f"cpu_engine = mindspeed, mindspeed_version = {run.mindspeed_version}",
            consequence="convert_ckpt_v2.py can not write one; the old convert_ckpt.py does, which later versions lack",
            remedy="set cpu_engine to native",
            severity="warn",
        )


@rule("engine", "recompute_granularity", about="training")
def recompute_is_worth_it(run: RunConfig) -> Iterator[Finding]:
    if run.engine == "mindspeed" and run.recompute_granularity == "selective":
        yield Finding(
            rule="selective recomputation saves nothing beside flash attention",
            fields=("recompute_granularity",),
            values="recompute_granularity = selective; the scripts use --use-flash-attn",
            consequence="time is lost, no memory is won",
            remedy="leave it empty, or choose full",
            severity="warn",
        )
