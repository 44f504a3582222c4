"""A plan, a refusal and a sweep, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.forecast import Forecast
from qwen3_ops.forecast.memory import GIB
from qwen3_ops.forecast.summary import summary
from qwen3_ops.forecast.sweep import Candidate
from qwen3_ops.plan import Plan


def print_plan(plan: Plan) -> None:
    console = Console(highlight=False)
    config, model = plan.config, plan.model
    console.print(
        f"[bold]{config.recipe}[/bold]: {model.num_parameters / 1e9:.3g} B parameters, {model.num_layers} layers, "
        f"TP{config.tensor_model_parallel_size} PP{config.pipeline_model_parallel_size} "
        f"on {config.nproc_per_node * config.nnodes} devices, {config.train_iters} iterations of {config.global_batch_size}"
    )
    _print_stages(console, plan)
    _print_mends(console, plan)
    _print_findings(console, plan.findings)
    if plan.forecast is not None:
        _print_forecast(console, plan.forecast, plan.config)


def print_forecast(forecast: Forecast, config: RunConfig) -> None:
    """Of a refused run: what it would take."""
    _print_forecast(Console(highlight=False), forecast, config)


def print_sweep(candidates: Sequence[Candidate], *, config: RunConfig, most: int) -> None:
    """The best ``most`` layouts."""
    console = Console(highlight=False)
    console.print(
        f"{len(candidates)} layouts of {config.nnodes} x {config.nproc_per_node} devices with {config.device_memory:g} GiB fit"
        f"{f', the best {most}' if len(candidates) > most else ''}; step time is relative, without communication"
    )
    names = {"tensor_model_parallel_size": "TP", "pipeline_model_parallel_size": "PP", "expert_model_parallel_size": "EP"}
    names |= {"micro_batch_size": "micro batch", "recompute_granularity": "recompute"}
    columns = list(candidates[0].changes) if candidates else []
    table = Table(
        "", *(names[name] for name in columns), "DP", "micro batches", "bubble", "step time", Column("GiB a device", justify="right")
    )
    for number, candidate in enumerate(candidates[:most], 1):
        table.add_row(
            str(number),
            *(str(candidate.changes[name] or "-") for name in columns),
            str(candidate.data_parallel_size),
            str(candidate.micro_batches),
            f"{candidate.bubble:.1%}",
            f"{candidate.work:.3f}",
            f"{candidate.memory / GIB:.1f}",
        )
    if candidates:
        console.print(table)
        best = " ".join(f"--set {name}={_json(value)}" for name, value in candidates[0].changes.items())
        console.print(f"the first: {best}", soft_wrap=True)


def _print_stages(console: Console, plan: Plan) -> None:
    table = Table("section", Column("task", no_wrap=True), "engine", Column("artifact", no_wrap=True), Column("GB", justify="right"))
    sizes = {} if plan.forecast is None else plan.forecast.artifacts
    for stage in plan.stages:
        nodes = f" on {len(stage.commands)} nodes" if len(stage.commands) > 1 else ""
        table.add_row(
            stage.section,
            stage.name,
            stage.engine + nodes,
            f"{'reuse' if stage.reused else 'make'} {stage.key}",
            f"{sizes[stage.name] / 1e9:.2g}" if stage.name in sizes else "",
        )
    console.print(table)


def _print_mends(console: Console, plan: Plan) -> None:
    reasons: dict[tuple[str, str], list[str]] = {}
    for stage in plan.stages:
        for mend in stage.mends:
            reasons.setdefault((mend.flag, mend.why), []).append(stage.name)
    if reasons:
        console.print("In this the commands differ from the runbook's:")
    for (flag, why), names in reasons.items():
        console.print(Padding(f"[bold]{flag}[/bold]: {escape(why)} ({', '.join(names)})", (0, 0, 0, 2)))


def _print_findings(console: Console, findings: Sequence[Finding]) -> None:
    if not findings:
        console.print("No findings.")
        return
    table = Table("", "finding", show_lines=True)
    for finding in findings:
        style = "red" if finding.severity == "refuse" else "yellow"
        table.add_row(f"[{style}]{finding.severity}[/{style}]", escape(str(finding)))
    console.print(table)


def _print_forecast(console: Console, forecast: Forecast, config: RunConfig) -> None:
    table = Table("forecast", Column("", justify="right"), "")
    for row in summary(forecast, config):
        table.add_row(*row)
    console.print(table)


def _json(value: object) -> str:
    return "null" if value is None else str(value)
