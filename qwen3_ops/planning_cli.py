"""The commands that plan: ``plan`` and ``render``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen3_ops.config import Fidelity
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import PlanRefused
from qwen3_ops.numbers import Written


def plan(
    recipe: Annotated[str | None, typer.Option(help="Recipe to start from; that of Qwen3-14B when not given.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; may be repeated.")] = None,
    pipeline: Annotated[str, typer.Option(help="Pipeline to plan.")] = "lora_sft",
    run_id: Annotated[str, typer.Option(help="Name of the run.")] = "manual",
    save: Annotated[bool, typer.Option("--save", help="Write plan.json below output_root, for run-stage.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Rank the layouts that fit nproc_per_node, nnodes and device_memory.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List the fields that --set takes, and exit.")] = False,
) -> None:
    """Check a run and show its stages, before it takes a device."""
    from qwen3_ops import report
    from qwen3_ops.pipelines import KINDS, PIPELINES
    from qwen3_ops.plan import make_plan, save_plan
    from qwen3_ops.recipes import name_of
    from qwen3_ops.request import resolve

    if fields:
        report.print_fields()
        return
    if pipeline not in PIPELINES:
        raise BadInput("unknown pipeline", value=pipeline, source="--pipeline", remedy=f"Choose one of {', '.join(PIPELINES)}.")
    request = {"recipe": name_of("14B", KINDS[pipeline]), **parse_overrides(overrides or []), **({"recipe": recipe} if recipe else {})}
    if sweep:
        _sweep(request, pipeline=pipeline, as_json=as_json)
        return
    try:
        made = make_plan(request, stages=PIPELINES[pipeline], run_id=run_id)
    except PlanRefused as refused:
        if as_json:
            print(refused.as_json())
        elif refused.forecast is not None:
            report.print_forecast(refused.forecast, resolve(request)[0])
        raise
    if as_json:
        print(made.model_dump_json(indent=2))
    else:
        report.print_plan(made)
    if save:
        print(f"plan: {save_plan(made)}", file=sys.stderr if as_json else sys.stdout)


def _sweep(request: dict[str, Any], *, pipeline: str, as_json: bool) -> None:
    from qwen3_ops import report
    from qwen3_ops.forecast.sweep import sweep
    from qwen3_ops.model import ModelSpec
    from qwen3_ops.pipelines import PIPELINES
    from qwen3_ops.request import resolve

    config, findings = resolve(request)
    if findings:
        raise PlanRefused(findings)
    candidates = sweep(config, ModelSpec.find(Path(config.model_dir)), PIPELINES[pipeline])
    if as_json:
        print(json.dumps([candidate.model_dump() for candidate in candidates], indent=2))
    else:
        report.print_sweep(candidates, config=config, most=20)


def render(
    name: Annotated[str | None, typer.Argument(help="Command of the runbook; without one they are listed.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; may be repeated.")] = None,
    model_dir: Annotated[Path | None, typer.Option(help="Hugging Face folder whose config.json gives the model's shape.")] = None,
    fidelity: Annotated[Fidelity, typer.Option(help="mended: without the runbook's faults; runbook: as it stands.")] = "mended",
    as_json: Annotated[bool, typer.Option("--json", help='Print {"env", "cwd", "argv"}.')] = False,
) -> None:
    """Show a command of the runbook, ready to be pasted into a shell of the Ascend container."""
    from qwen3_ops import report
    from qwen3_ops.runbook import RUNBOOK, render_command

    if name is None:
        report.print_runbook(RUNBOOK)
        return
    shown = render_command(name, overrides=parse_overrides(overrides or []), model_dir=model_dir, fidelity=fidelity)
    for finding in shown.findings:
        print(f"warning: {finding}", file=sys.stderr)
    if as_json:
        print(shown.command.model_dump_json(indent=2))
    else:
        report.print_command(shown.command, shown.mends)


def parse_overrides(items: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        field, equals, text = item.partition("=")
        if not equals:
            raise BadInput("--set takes FIELD=VALUE", value=item)
        values[field.strip()] = _value(text)
    return values


def _value(text: str) -> Any:
    """JSON lists and numbers as such, anything else as text; pydantic checks the type."""
    try:
        value = json.loads(text, parse_float=Written)
    except ValueError:
        return text
    return text if isinstance(value, dict) else value
