"""The ``qwen3-ops`` command."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from qwen3_ops import __version__
from qwen3_ops.bench.cli import app as bench
from qwen3_ops.errors import BadInput, ExitCode, OpsError
from qwen3_ops.events import Events
from qwen3_ops.findings import PlanRefused
from qwen3_ops.planning_cli import plan, render
from qwen3_ops.verbs import VERBS, Verb

app = typer.Typer(
    name="qwen3-ops",
    help="Fine-tune Qwen3 on Ascend: plan a run, run its stages, prove what they made.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point: turns errors into one readable message and the contract's exit status."""
    try:
        app(standalone_mode=True)
    except OpsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
    except Exception as error:
        from qwen3_ops.execute import classify

        code, message = classify(error)
        traceback.print_exc()
        print(f"error: {message}", file=sys.stderr)
        sys.exit(int(code))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)] = False,
) -> None: ...


app.command()(plan)
app.command()(render)


@app.command("run-stage")
def run_stage(
    plan_json: Annotated[Path, typer.Argument(help="plan.json of the run.")],
    stage: Annotated[str, typer.Argument(help="Name of the stage in the plan.")],
    node_rank: Annotated[int | None, typer.Option(help="This host's place in hosts, where its addresses do not tell.")] = None,
    part: Annotated[str | None, typer.Option(metavar="I/N", help="Make only part I (0 to N-1) of N of the stage's data set.")] = None,
    join: Annotated[int, typer.Option(min=1, metavar="N", help="Make the stage's data set of its N parts.")] = 1,
) -> None:
    """Make, resume or reuse the artifact of one planned stage."""
    from qwen3_ops.run_stage import run_stage as execute_stage

    raise typer.Exit(int(execute_stage(plan_json, stage, part=part, join=join, node_rank=node_rank)))


@app.command()
def preflight(plan_json: Annotated[Path, typer.Argument(help="plan.json of the run.")]) -> None:
    """Look at this machine as a run will find it: devices, versions, disk, ports."""
    from qwen3_ops.plan import load_plan
    from qwen3_ops.preflight import describe, examine, look, needs_npus

    made = load_plan(plan_json)
    on_npus = needs_npus(made)
    machine = look(made.config, needs_npus=on_npus)
    for line in describe(made.config, machine, needs_npus=on_npus):
        print(f"preflight: {line}")
    found = examine(made.config, machine, needs_npus=on_npus)
    if any(finding.severity == "refuse" for finding in found):
        raise PlanRefused(found, who="The preflight")
    for finding in found:
        print(f"warning: {finding}")
    print(f"preflight: {len(found)} warning{'s' if len(found) != 1 else ''}")


@app.command()
def diagnose(
    logs: Annotated[list[Path] | None, typer.Argument(help="Logs of one run: of every rank or node, in any order.")] = None,
    known: Annotated[bool, typer.Option("--known", help="List the failures that are known, and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Find the earliest error in logs of MindSpeed-LLM: its cause, its remedy, and whether a retry can cure it."""
    from qwen3_ops.mindspeed.diagnosis import report
    from qwen3_ops.mindspeed.diagnosis.read import diagnose_logs

    if known:
        report.print_known()
        return
    if not logs:
        raise BadInput("no log is named", remedy="Give the files, or --known for the list of failures.")
    found = diagnose_logs(logs)
    if found is None:
        print("no failure that is known, and no exception")
        return
    print(json.dumps(report.as_event(found), ensure_ascii=False, indent=2) if as_json else report.block(found))
    raise typer.Exit(int(found.exit_code))


@app.command("gather-ckpt")
def gather_ckpt(
    parts: Annotated[list[Path], typer.Argument(help="The --save folders of all nodes, copied or mounted here.")],
    save_dir: Annotated[Path, typer.Option(help="Folder to gather the ranks in; may be one of them.")],
    tensor_model_parallel_size: Annotated[int, typer.Option(min=1, help="TP of the training.")],
    pipeline_model_parallel_size: Annotated[int, typer.Option(min=1, help="PP of the training.")],
) -> None:
    """Join a checkpoint whose ranks lie on several nodes' own disks."""
    from qwen3_ops.layout import ParallelLayout
    from qwen3_ops.mindspeed.shards import gather

    layout = ParallelLayout(
        tensor_model_parallel_size=tensor_model_parallel_size, pipeline_model_parallel_size=pipeline_model_parallel_size
    )
    print(f"iteration {gather(parts, save_dir.absolute(), layout=layout)} is whole in {save_dir}")


@app.command("make-tiny")
def make_tiny(
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Annotated[int, typer.Option(help="Seed of weights and samples.")] = 1234,
) -> None:
    """Make the tiny twin: a small Qwen3 with tokenizer, data sets and MMLU questions."""
    from qwen3_ops.native.tiny.make import make_tiny as make

    make(output.absolute(), seed=seed, events=Events.from_environment())


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="The --save-dir of a convert-ckpt, with its certificate.json.")],
    source: Annotated[Path | None, typer.Option(help="Where the source lies now, if it was moved.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Where the merged adapter lies now, if it was moved.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the claims as JSON.")] = False,
) -> None:
    """Check a conversion by its certificate, prove its round trip, and of a merge that it is right."""
    from qwen3_ops.native.checkpoint.verify import verify as check

    claims = check(path, source=source, adapter=adapter)
    if as_json:
        print(json.dumps([claim._asdict() for claim in claims], indent=2))
    else:
        print(*(f"{claim.verdict}: {claim.claim}: {claim.detail}" for claim in claims), sep="\n")
    if any(claim.verdict == "failed" for claim in claims):
        raise typer.Exit(int(ExitCode.QUALITY_GATE))


def _add_verb(verb: Verb) -> None:
    def command(context: typer.Context) -> None:
        argv = list(context.args)
        if not argv or "--help" in argv or "-h" in argv:
            from qwen3_ops.report import print_flags

            print_flags(verb)
            raise typer.Exit(int(ExitCode.DONE if argv else ExitCode.BAD_INPUT))
        _run_verb(verb, argv)

    app.command(
        verb.name,
        help=verb.summary,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(command)


def _run_verb(verb: Verb, argv: list[str]) -> None:
    from qwen3_ops.execute import Provenance, interruptible, run_verb

    output = None
    if verb.output_flag is None and "--output-dir" in argv:  # ours: the real scripts only print
        at = argv.index("--output-dir")
        if at + 1 == len(argv):
            raise BadInput("--output-dir takes a folder")
        output = Path(argv[at + 1]).absolute()
        argv = argv[:at] + argv[at + 2 :]
    with interruptible():
        run_verb(verb, argv, events=Events.from_environment(), provenance=Provenance(stage=verb.name), output=output)


for _verb in VERBS.values():
    _add_verb(_verb)
app.add_typer(bench)
