"""The runbook's commands by name, with its own values and places: what ``qwen3-ops render`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qwen3_ops import rules
from qwen3_ops.command import Command
from qwen3_ops.config import Fidelity, RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding, PlanRefused
from qwen3_ops.launch import commands
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.recipes import Kind, production
from qwen3_ops.request import override
from qwen3_ops.stages import STAGES, scripts
from qwen3_ops.stages.paths import Paths
from qwen3_ops.stages.rendering import Mend, render
from qwen3_ops.stages.script import Script, Site


@dataclass(frozen=True, kw_only=True)
class RunbookCommand:
    """One command of the runbook.

    Attributes:
        output: its place below ``output_root``; None: the base model's own folder.
        inputs: input name -> place below ``output_root``.
        values: of the runbook, where they differ from the 14B recipe's.
        by_hand: values that the runbook typed over a variable of its script; the mended command does without.
        node: whose command it is, of several.
    """

    section: str
    script: Script
    kind: Kind = "lora"
    output: str | None
    inputs: Mapping[str, str] = field(default_factory=dict)
    dataset_name: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    by_hand: Mapping[str, Any] = field(default_factory=dict)
    node: int = 0

    def config(self, fidelity: Fidelity) -> RunConfig:
        habits = {habit.field: habit.value for habit in self.script.habits}
        script_values = {**habits, **self.by_hand} if fidelity == "runbook" else {}
        values = {"model_dir": "/apps/hw/weights/Qwen3-14B/", "fidelity": fidelity, **script_values, **self.values}
        return production("14B", self.kind).model_copy(update=values)

    def stages(self, run: RunConfig) -> tuple[StageRequest, ...]:
        """The stage that it is, for the rules; data preparation where it is none."""
        names = [name for name, stage in STAGES.items() if stage.script_of(run) == self.script]
        return tuple(StageRequest(name=name, stage=name) for name in names or ["prepare_dataset"])

    def paths(self, run: RunConfig) -> Paths:
        def below(place: str) -> str:
            return f"{run.output_root.rstrip('/')}/{place}"

        return Paths(
            model=run.model_dir,
            tokenizer=run.model_dir,
            source=run.input,
            tasks=run.task_data_path,
            load=run.load,
            output=run.model_dir if self.output is None else below(self.output),
            inputs={name: below(place) for name, place in self.inputs.items()},
            dataset_name=self.dataset_name,
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A rendered command, what it mends, and why its layout or batches can not work."""

    command: Command
    mends: tuple[Mend, ...]
    findings: tuple[Finding, ...]


def render_command(name: str, *, overrides: Mapping[str, Any], model_dir: Path | None, fidelity: Fidelity) -> Shown:
    """The command ``name``.

    Args:
        overrides: RunConfig fields over the runbook's values.
        model_dir: folder whose config.json gives the model's shape; None: the command's own, where it is
            here, else the released model of that name. The paths in the command are ``overrides``' matter.

    Raises:
        BadInput: unknown name, unknown field, wrong value, no model.
    """
    if name not in RUNBOOK:
        raise BadInput("unknown command", value=name, remedy="`qwen3-ops render` lists them.")
    command = RUNBOOK[name]
    run, findings = override(command.config(fidelity), overrides)
    if findings:
        raise PlanRefused(findings)
    model = ModelSpec.find(Path(run.model_dir)) if model_dir is None else ModelSpec.from_hf(model_dir, model_type=None)
    rendered = render(command.script, Site(run=run, model=model, paths=command.paths(run)), engine="mindspeed")
    nodes = commands(run, rendered)
    if command.node >= len(nodes):
        raise BadInput("the run has no such node", value=command.node, source=name, remedy="Set nnodes to at least 2.")
    found = rules.apply(run, model, stages=command.stages(run), themes=("layout", "batches"))
    return Shown(
        command=nodes[command.node], mends=rendered.mends, findings=tuple(finding for finding in found if finding.severity == "refuse")
    )


_CONVERTED = "14b/mg_weights/qwen3_14b_mcore_tp2pp4/"
_SFT = "14b/save_weights_sft/qwen3_14b_mcore_tp2pp4"
_LORA = "14b/save_weights_lora/qwen3_14b_mcore_tp2pp4"
_MERGED = f"{_LORA}_merge/"

_SHAREGPT = {
    "input": "/apps/hw/datasets/roleplay-zh-sharegpt-gpt4-data/sharegpt_formatted_data-evol-gpt4.jsonl",
    "handler_name": "SharegptStyleInstructionHandler",
}
_OPENAI = {
    "input": "./dataset/xxx.json",
    "handler_name": "SharegptStyleInstructionHandler",
    "map_keys": '{"messages":"messages", "tags":{"role_tag": "role","content_tag": "content","user_tag": "user",'
    '"assistant_tag": "assistant","system_tag": "system"}}',
}
_TWO_NODES = {"nnodes": 2, "hosts": ("{MASTER_ADDR}", "{NODE_1_ADDR}"), "master_port": 6000, "no_shared_storage": True}


def _trainings() -> dict[str, RunbookCommand]:
    """Full and LoRA fine-tuning on both data sets, pre-training; each alone and on two nodes."""
    alone: dict[str, RunbookCommand] = {}
    for data, full_section, lora_section, suffix, values in (
        ("alpaca", "4.3.1", "5.2.1", "/", {}),
        ("sharegpt", "4.3.2", "5.2.2", "_sharegpt/", _SHAREGPT),
    ):
        inputs = {"checkpoint": _CONVERTED, "dataset": f"finetune_dataset_{data}"}
        alone[f"full_sft_{data}"] = RunbookCommand(
            section=full_section,
            script=scripts.TRAIN_FULL,
            kind="full",
            output=_SFT + suffix,
            inputs=inputs,
            values=values,
            by_hand={"save_interval": 1000},
        )
        alone[f"lora_sft_{data}"] = RunbookCommand(
            section=lora_section, script=scripts.TRAIN_LORA, output=_LORA + suffix, inputs=inputs, values=values
        )
    alone["pretrain"] = RunbookCommand(
        section="6.2",
        script=scripts.PRETRAIN,
        kind="pretrain",
        output="14b/save_weights_pretrain/qwen3_14b_mcore_tp2pp4/",
        inputs={"checkpoint": _CONVERTED, "dataset": "pretrain_datasets_enwiki"},
        dataset_name="enwiki",
    )
    nodes = {
        f"multinode_{name}_node{node}": replace(command, values={**command.values, **_TWO_NODES}, node=node)
        for name, command in alone.items()
        for node in range(2)
    }
    return {**alone, **nodes}


def _checks(kind: Kind, name: str, generated: str, evaluated: str, sections: tuple[str, str]) -> dict[str, RunbookCommand]:
    return {
        f"generate_{name}": RunbookCommand(
            section=sections[0],
            script=scripts.GENERATE,
            kind=kind,
            output="generation",
            inputs={"checkpoint": generated},
            values={"master_port": 6000},
        ),
        f"mmlu_{name}": RunbookCommand(
            section=sections[1],
            script=scripts.EVALUATE_MMLU,
            kind=kind,
            output="evaluation",
            inputs={"checkpoint": evaluated},
        ),
    }


RUNBOOK: Mapping[str, RunbookCommand] = {
    "hf2mcore": RunbookCommand(section="3.1", script=scripts.CONVERT_HF_TO_MCORE, output=_CONVERTED),
    "mcore2hf": RunbookCommand(section="3.2", script=scripts.EXPORT_TO_HF, kind="full", output=None, inputs={"checkpoint": f"{_SFT}/"}),
    "data_alpaca": RunbookCommand(section="4.1.2", script=scripts.PREPARE_DATASET, output="finetune_dataset_alpaca"),
    "data_sharegpt": RunbookCommand(section="4.2.3", script=scripts.PREPARE_DATASET, output="finetune_dataset_sharegpt", values=_SHAREGPT),
    "data_openai": RunbookCommand(
        section="4.2.2", script=scripts.PREPARE_OPENAI, output="finetune_dataset_openai", dataset_name="openai", values=_OPENAI
    ),
    "data_pretrain_enwiki": RunbookCommand(
        section="6.1",
        script=scripts.PREPARE_PRETRAINING,
        kind="pretrain",
        output="pretrain_datasets_enwiki",
        dataset_name="enwiki",
    ),
    **_trainings(),
    "lora_merge_mcore2mcore": RunbookCommand(
        section="5.3", script=scripts.MERGE_LORA, output=_MERGED, inputs={"checkpoint": _CONVERTED, "adapter": f"{_LORA}/"}
    ),
    "lora_mcore2hf": RunbookCommand(
        section="5.4", script=scripts.EXPORT_LORA_TO_HF, output=None, inputs={"checkpoint": _CONVERTED, "adapter": f"{_LORA}/"}
    ),
    **_checks("full", "full", _SFT, f"{_SFT}/", ("4.4", "4.5.1")),
    **_checks("lora", "lora", _MERGED, _MERGED, ("5.5", "5.6")),
    "tensorboard": RunbookCommand(section="6.2", script=scripts.TENSORBOARD, output="14b/tb"),
}
"""Name -> command; a name is that of the runbook's step."""
