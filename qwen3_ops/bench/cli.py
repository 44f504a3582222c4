"""``qwen3-ops bench``: one command for each thing that is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(name="bench", help="Measure this machine: figures that anyone can repeat.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command()
def data(
    tokenizer: Annotated[Path | None, typer.Option(help="Folder with tokenizer.json; without it a small one is trained.")] = None,
    records: Annotated[int, typer.Option(min=1000, help="Alpaca-like records; 52000 are as many as Alpaca has.")] = 52_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the records.")] = 1234,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Data preparation beside the bare tokenizer on the same strings."""
    from qwen3_ops.bench.data import measure, print_figures

    figures = measure(tokenizer, records=records, repeat=repeat, seed=seed)
    if as_json:
        print(figures.model_dump_json(indent=2))
    else:
        print_figures(figures)


@app.command()
def ckpt(
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Folder on the disk to measure, with 15 GB free.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 1234,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Checkpoint conversions and a LoRA merge of 1 and 2 GB beside a copy of the same bytes."""
    from qwen3_ops.bench.ckpt import measure, print_figures

    figures = measure(repeat=repeat, seed=seed, folder=folder)
    if as_json:
        print(figures.model_dump_json(indent=2))
    else:
        print_figures(figures)


@app.command()
def log(
    lines: Annotated[int, typer.Option(min=1000, help="Lines of each kind.")] = 200_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Reading MindSpeed-LLM's log: parsing, counting, looking for failures."""
    from qwen3_ops.bench.log import measure, print_figures

    figures = measure(lines=lines, repeat=repeat)
    if as_json:
        print(figures.model_dump_json(indent=2))
    else:
        print_figures(figures)


@app.command()
def train(
    repeat: Annotated[int, typer.Option(min=1, help="Rounds, ours and transformers' by turns; the fastest counts.")] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda or npu.")] = "cpu",
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="bf16 has fp32 master weights on both sides.")] = "fp32",
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="The device's peak by its data sheet, for the utilisation; else a product's is measured."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and tokens.")] = 1234,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Our training step beside transformers' Qwen3, on the same weights and batches."""
    from qwen3_ops.bench.train import measure, print_figures

    figures = measure(repeat=repeat, seed=seed, device=device, dtype=dtype, peak_tflops=peak_tflops)
    if as_json:
        print(figures.model_dump_json(indent=2))
    else:
        print_figures(figures)


@app.command()
def mmlu(
    questions: Annotated[int, typer.Option(min=2, help="Of one subject; MMLU's have 100 to 1534.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of weights and tokens.")] = 1234,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Questions a second of evaluate, beside whole prompts one at a time."""
    from qwen3_ops.bench.mmlu import measure, print_figures

    figures = measure(questions=questions, seed=seed)
    if as_json:
        print(figures.model_dump_json(indent=2))
    else:
        print_figures(figures)
