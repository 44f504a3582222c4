"""Folders: there, writable where the real scripts want it, and apart from the base weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.rules.registry import rule

_PATH = re.compile(r"[./_\- ~0-9A-Za-z\u4e00-\u9fff]+")
"""What MindSpeed-LLM's ``standardize_path`` lets through."""


@rule("model_dir")
def model_is_complete(run: RunConfig) -> Iterator[Finding]:
    folder = Path(run.model_dir)
    if not is_absolute_folder(folder):
        yield missing("model_dir", folder, "an absolute path of an existing folder")
        return
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            yield missing("model_dir", folder / name, f"a folder with {name}")
    if not any(folder.glob("*.safetensors")):
        yield missing("model_dir", folder / "*.safetensors", "a folder with the weights as safetensors")


@rule("output_root", "model_dir")
def output_is_elsewhere(run: RunConfig) -> Iterator[Finding]:
    root, model = Path(run.output_root), Path(run.model_dir)
    if not root.is_absolute():
        yield missing("output_root", root, "an absolute path")
        return
    if root.resolve().is_relative_to(model.resolve()):  # also through a link or ..
        yield Finding(
            rule="output_root must lie outside model_dir",
            fields=("output_root", "model_dir"),
            values=f"output_root = {root}, model_dir = {model}",
            consequence="results would be written beside the base weights",
            remedy="choose another folder",
        )
    standing = nearest_existing(root)
    if not _writable(standing):
        yield Finding(
            rule="output_root must be writable",
            fields=("output_root",),
            values=f"{standing} can not be written by user id {os.geteuid()}",
            consequence="the first stage would fail",
            remedy="choose another folder or change its permissions",
        )


@rule("model_dir", "task_data_path", "engine", "cpu_engine")
def real_scripts_may_write(run: RunConfig) -> Iterator[Finding]:
    wanted = []
    if run.cpu_engine == "mindspeed":
        wanted.append(("model_dir", run.model_dir))
    if run.engine == "mindspeed":
        wanted.append(("task_data_path", run.task_data_path))
    for field, place in wanted:
        folder = Path(place)
        if folder.is_dir() and not _writable(folder):
            yield Finding(
                rule=f"{field} must be writable for MindSpeed-LLM, which only reads it",
                fields=(field,),
                values=f"{folder} can not be written by user id {os.geteuid()}",
                consequence=f"its check of paths ends the stage: File {folder} not writable",
                remedy="mount the folder writable"
                + (", or let the native engine do the conversion (cpu_engine)" if field == "model_dir" else ""),
            )


@rule("model_dir", "input", "task_data_path", "output_root", "mindspeed_dir", "engine", "cpu_engine")
def paths_are_accepted(run: RunConfig) -> Iterator[Finding]:
    if "mindspeed" not in (run.engine, run.cpu_engine):
        return
    for field in ("model_dir", "input", "task_data_path", "output_root", "mindspeed_dir"):
        place = getattr(run, field)
        strange = sorted({sign for sign in place if not _PATH.fullmatch(sign)})
        if strange:
            yield Finding(
                rule=f"{field} must hold letters, digits and . / _ - ~ only",
                fields=(field,),
                values=f"{place!r} holds {' '.join(map(repr, strange))}",
                consequence="MindSpeed-LLM refuses it: Invalid input path",
                remedy="rename the folder",
            )


def missing(field: str, path: Path, wanted: str) -> Finding:
    if not path.is_absolute():
        found = "is not absolute"
    else:
        found = "is something else" if path.exists() else "does not exist"
    return Finding(
        rule=f"{field} must be {wanted}",
        fields=(field,),
        values=f"{path} {found}",
        consequence="a stage would fail, or train on random weights",
        remedy="check the path, as the machine that runs the stages sees it",
    )


def is_absolute_folder(path: Path) -> bool:
    return path.is_absolute() and path.is_dir()


def nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
