"""Training data, templates and MMLU's questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.errors import BadInput
from qwen3_ops.findings import Finding
from qwen3_ops.native.data.templates import TEMPLATES
from qwen3_ops.native.data.tokenizer import missing_tokens
from qwen3_ops.rules.places import is_absolute_folder, missing
from qwen3_ops.rules.registry import rule

_PAGE = (b"<!doctype html", b"<html")


@rule("input", about="data")
def data_is_there(run: RunConfig) -> Iterator[Finding]:
    source = Path(run.input)
    if not source.is_absolute() or not source.exists():
        yield missing("input", source, "an absolute path of an existing file or folder")


@rule("data_shards", "cpu_engine", about="data")
def parts_are_ours(run: RunConfig) -> Iterator[Finding]:
    if run.data_shards > 1 and run.cpu_engine != "native":
        yield Finding(
            rule="data_shards above 1 needs the native engine",
            fields=("data_shards", "cpu_engine"),
            values=f"data_shards = {run.data_shards}, cpu_engine = {run.cpu_engine}",
            consequence="preprocess_data.py can not prepare a part",
            remedy="set data_shards to 1, or cpu_engine to native",
        )


@rule("input", about="data")
def data_is_no_web_page(run: RunConfig) -> Iterator[Finding]:
    source = Path(run.input)
    if not source.is_file():
        return
    try:
        with source.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        yield Finding(
            rule="input must be readable",
            fields=("input",),
            values=str(error),
            consequence="data preparation would stop",
            remedy="let the user of the stages read it",
        )
        return
    page = head.lstrip().lower().startswith(_PAGE)
    if page or (source.suffix == ".parquet" and not head.startswith(b"PAR1")):
        yield Finding(
            rule="input must be the data, not the page that shows it",
            fields=("input",),
            values=f"{source} begins with {head[:24]!r}",
            consequence="data preparation would stop: this is no " + (source.suffix or "data") + " file",
            remedy="download it from the /resolve/ address; /blob/ is the web page" if page else "download it again",
        )


@rule("task_data_path", about="mmlu")
def questions_are_there(run: RunConfig) -> Iterator[Finding]:
    folder = Path(run.task_data_path)
    if not is_absolute_folder(folder):
        yield missing("task_data_path", folder, "an absolute path of an existing folder")
    elif not any(folder.glob("*_test.csv")):
        yield missing("task_data_path", folder / "*_test.csv", "a folder with <subject>_test.csv files")


@rule("task_data_path", "engine", about="mmlu")
def only_questions_are_there(run: RunConfig) -> Iterator[Finding]:
    folder = Path(run.task_data_path)
    if run.engine == "native" or not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if not path.name.endswith("_test.csv"))
    if others:
        yield Finding(
            rule="task_data_path should hold nothing but *_test.csv",
            fields=("task_data_path",),
            values=f"{folder} also holds {', '.join(others[:5])}",
            consequence="MindSpeed-LLM reads every entry as a subject",
            remedy="move them elsewhere",
            severity="warn",
        )


@rule("map_keys", "handler_name", about="data")
def mapping_is_json(run: RunConfig) -> Iterator[Finding]:
    if run.map_keys is None:
        return
    try:
        mapping = json.loads(run.map_keys)
    except ValueError as error:
        mapping, problem = None, f"is not JSON: {error}"
    else:
        problem = "" if isinstance(mapping, dict) else "is not a JSON object"
    if problem:
        yield Finding(
            rule="map_keys must be a JSON object",
            fields=("map_keys",),
            values=f"{run.map_keys!r} {problem}",
            consequence="data preparation would stop",
            remedy='write {"prompt": "instruction", "query": "input", "response": "output"} with your column names',
        )


@rule("prompt_type", "handler_name", "model_dir", about="data")
def template_fits_tokenizer(run: RunConfig) -> Iterator[Finding]:
    if run.handler_name == "GeneralPretrainHandler":
        return
    if run.prompt_type not in TEMPLATES:
        yield Finding(
            rule="prompt_type must be a known template",
            fields=("prompt_type",),
            values=f"prompt_type = {run.prompt_type}",
            consequence="data preparation would stop",
            remedy=f"choose one of {', '.join(sorted(TEMPLATES))}",
        )
        return
    if not (Path(run.model_dir) / "tokenizer.json").is_file():
        return  # told by model_is_complete
    try:
        lacking = missing_tokens(Path(run.model_dir), run.prompt_type)
    except BadInput as error:
        yield missing("model_dir", Path(run.model_dir) / "tokenizer.json", f"a folder with a readable tokenizer.json ({error})")
        return
    if lacking:
        yield Finding(
            rule="the tokenizer must have the template's special tokens",
            fields=("prompt_type", "model_dir"),
            values=f"template {run.prompt_type} needs {' '.join(lacking)}, which {run.model_dir}/tokenizer.json lacks",
            consequence="the tokens would be spelled out in pieces and the model would never learn to stop",
            remedy="choose the template of this model family, or the right tokenizer",
        )


@rule("prompt_type", "handler_name", about="data")
def template_is_of_this_family(run: RunConfig) -> Iterator[Finding]:
    template = TEMPLATES.get(run.prompt_type)
    if run.handler_name == "GeneralPretrainHandler" or template is None or "<|im_end|>" in template.markers:
        return
    yield Finding(
        rule="prompt_type should be a template of the Qwen family",
        fields=("prompt_type",),
        values=f"prompt_type = {run.prompt_type}, whose turns do not end in <|im_end|>",
        consequence="the model learns another dialogue format than it knows, and than its own chat template asks for",
        remedy="choose qwen, as the runbook does everywhere but in its OpenAI example",
        severity="warn",
    )
