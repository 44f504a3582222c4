"""The plan: every finding at once, then every stage's command, before any device is taken.

A stage's ``key`` identifies its request: the hash of its argv with fingerprints in the
place of paths, an input's fingerprint being the key of the stage that makes it. So all keys,
and with them all output folders, are known before anything runs, and a finished artifact
under the same key is not made again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict

from qwen3_ops import rules
from qwen3_ops.artifacts import MANIFEST, InputRef, Kind, sha256_text, write_atomically, writing
from qwen3_ops.command import Command
from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding, PlanRefused
from qwen3_ops.fingerprint import checkpoint_fingerprint, model_fingerprint, source_fingerprint, tasks_fingerprint, tokenizer_fingerprint
from qwen3_ops.forecast import Forecast, forecast
from qwen3_ops.launch import commands
from qwen3_ops.model import ModelSpec, released
from qwen3_ops.numbers import canonical
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.request import resolve
from qwen3_ops.rules.capacity import disk_is_large_enough
from qwen3_ops.stages import STAGES, Stage
from qwen3_ops.stages.paths import Paths
from qwen3_ops.stages.rendering import Mend
from qwen3_ops.stages.rendering import render as render_script
from qwen3_ops.stages.script import Site
from qwen3_ops.verbs import VERBS

_VOLATILE = {"--workers", "--log-interval", "--save-interval", "--tensorboard-dir", "--tokenizer-model", "--keep-last"}
"""Flags with one value that do not change what a stage makes."""


class StagePlan(BaseModel):
    """One stage, ready to run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stage: str
    title: str
    section: str
    verb: str
    engine: str
    argv: list[str]
    mends: list[Mend] = []
    """In which flags it differs from the runbook's on purpose, and why."""
    key: str
    inputs: dict[str, InputRef]
    output: str
    kind: Kind
    reused: bool
    """Whether the artifact stood already when the plan was made."""
    commands: list[Command] = []
    """What the mindspeed engine starts, one command a node, the master's first; empty for the native engine, which takes ``argv``."""


class Plan(BaseModel):
    """A run that no rule refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    run_dir: str
    created_at: str
    config: RunConfig
    model: ModelSpec
    findings: list[Finding]
    forecast: Forecast | None = None
    stages: list[StagePlan]

    def stage(self, name: str) -> StagePlan:
        """Raises BadInput: the plan has no such stage."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise BadInput("the plan has no such stage", value=name, remedy=f"It has {', '.join(stage.name for stage in self.stages)}.")

    def stage_dir(self, name: str) -> Path:
        """Where a stage's log, events and exit status lie."""
        return Path(self.run_dir) / name


def make_plan(request: Mapping[str, Any], *, stages: Sequence[StageRequest], run_id: str) -> Plan:
    """Check a request and render its stages; writes nothing.

    Raises:
        PlanRefused: with every finding.
        BadInput: the pipeline itself is wrong.
    """
    config, findings = resolve(request)
    invalid = {field for finding in findings for field in finding.fields}
    model, more = check(config, stages, skip=invalid)
    findings += more
    if model is None or any(finding.severity == "refuse" for finding in findings):
        raise PlanRefused(findings, forecast=None if model is None or invalid else forecast(config, model, stages))
    rendered = render(config, model, stages)
    expected = forecast(config, model, stages)
    findings += disk_is_large_enough(config, {stage.name: expected.artifacts[stage.name] for stage in rendered if not stage.reused})
    if any(finding.severity == "refuse" for finding in findings):
        raise PlanRefused(findings, forecast=expected)
    run_dir = Path(config.output_root) / "runs" / safe_name(run_id)
    return Plan(
        run_id=run_id,
        run_dir=str(run_dir),
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        config=config,
        model=model,
        findings=findings,
        forecast=expected,
        stages=rendered,
    )


def check(config: RunConfig, stages: Sequence[StageRequest], *, skip: set[str]) -> tuple[ModelSpec | None, list[Finding]]:
    """All rules whose fields have valid values.

    Returns:
        The model (where its folder is not here but a released model bears its name, that model's shape,
        so that the rules about it are told at once) and what was found.
    """
    findings: list[Finding] = []
    model = None
    try:
        model = None if "model_dir" in skip else ModelSpec.from_hf(Path(config.model_dir), model_type=None)
    except BadInput as error:
        model = released(PurePath(config.model_dir).name)
        findings.append(
            Finding(
                rule="model_dir must hold a Qwen3 model",
                fields=("model_dir",),
                values=str(error),
                consequence="no stage can be rendered",
                remedy="check the path, as the machine that runs the stages sees it",
            )
        )
    return model, findings + rules.apply(config, model, stages=stages, skip=skip)


def render(config: RunConfig, model: ModelSpec, requests: Sequence[StageRequest]) -> list[StagePlan]:
    """The stages in the given order, which must be one they can run in."""
    outside = _fingerprints(config)
    done: dict[str, StagePlan] = {}
    for request in requests:
        stage = _stage(request, done)
        made = {name: done[producer] for name, producer in request.inputs.items()}
        identity = Paths(**outside, output="output", inputs={name: producer.key for name, producer in made.items()})
        script, verb = stage.script_of(config), VERBS[stage.verb]
        engine = config.engine if verb.on_devices else config.cpu_engine
        site = Site(run=config, model=model, paths=identity)
        key = _key(stage, render_script(script, site, engine="native").argv, engine=config.engine if verb.on_devices else None)
        output = Path(config.output_root) / "artifacts" / request.stage / key
        paths = Paths(
            model=config.model_dir,
            tokenizer=config.model_dir,
            source=config.input,
            tasks=config.task_data_path,
            load=config.load,
            output=str(output),
            inputs={name: producer.output for name, producer in made.items()},
        )
        rendered = render_script(script, replace(site, paths=paths), engine=engine)
        if engine == "native":
            verb.flags().parse(rendered.argv)
        done[request.name] = StagePlan(
            name=request.name,
            stage=request.stage,
            title=stage.title,
            section=stage.section,
            verb=stage.verb,
            engine=engine,
            argv=rendered.argv,
            mends=list(rendered.mends),
            key=key,
            inputs={name: InputRef(path=producer.output, key=producer.key) for name, producer in made.items()},
            output=str(output),
            kind=stage.kind,
            reused=(output / MANIFEST).is_file(),
            commands=commands(config, rendered) if engine == "mindspeed" else [],
        )
    return list(done.values())


def save_plan(plan: Plan) -> Path:
    """Write ``plan.json`` into the run's folder and return its path."""
    path = Path(plan.run_dir) / "plan.json"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, plan.model_dump_json(indent=2) + "\n")
    return path


def load_plan(path: Path) -> Plan:
    """Raises BadInput: not there, or not a plan of this version."""
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("the plan can not be read", value=error, source=path, remedy="Plan the run again.") from error


def safe_name(run_id: str) -> str:
    """A folder name for a run: Airflow's run ids hold colons and plus signs."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", run_id).strip(".") or "run"


def _stage(request: StageRequest, done: Mapping[str, StagePlan]) -> Stage:
    if request.stage not in STAGES:
        raise BadInput("unknown stage", value=request.stage, source=f"task {request.name}", remedy=f"Stages: {', '.join(STAGES)}.")
    stage = STAGES[request.stage]
    if set(request.inputs) != set(stage.inputs):
        raise BadInput(
            f"stage {request.stage} wants the inputs {sorted(stage.inputs)}", value=sorted(request.inputs), source=f"task {request.name}"
        )
    for name, producer in request.inputs.items():
        if producer not in done:
            raise BadInput(f"input {name} comes from no earlier stage", value=producer, source=f"task {request.name}")
        if done[producer].kind not in stage.inputs[name]:
            raise BadInput(
                f"input {name} must be a {' or '.join(stage.inputs[name])}",
                value=f"{producer} makes a {done[producer].kind}",
                source=f"task {request.name}",
            )
    return stage


def _fingerprints(config: RunConfig) -> dict[str, str]:
    return {
        "model": model_fingerprint(Path(config.model_dir)),
        "tokenizer": tokenizer_fingerprint(Path(config.model_dir)),
        "source": source_fingerprint(Path(config.input)),
        "tasks": tasks_fingerprint(Path(config.task_data_path)),
        **({"load": checkpoint_fingerprint(Path(config.load))} if config.load else {}),
    }


def _key(stage: Stage, argv: Sequence[str], *, engine: str | None) -> str:
    """``engine``: where another engine computes another result (training), or answers on other hardware."""
    lasting = [canonical(token) for at, token in enumerate(argv) if token not in _VOLATILE and (at == 0 or argv[at - 1] not in _VOLATILE)]
    return sha256_text(json.dumps([stage.verb, stage.version, engine, lasting]))[:16]
