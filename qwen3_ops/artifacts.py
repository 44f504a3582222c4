"""Artifacts: published folders with a manifest.

A folder is an artifact when it holds ``manifest.json``, which is always written last: a
half-made one is never seen. Folders are made under a temporary name beside their place and
published by an atomic rename.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen3_ops.errors import BadInput, Infrastructure

MANIFEST = "manifest.json"

Kind = Literal["hf_model", "mcore_checkpoint", "lora_checkpoint", "dataset", "dataset_part", "generation", "evaluation"]

_VERSIONED = ("qwen3-ops", "torch", "torch_npu", "transformers", "tokenizers", "safetensors", "pyarrow", "peft", "numpy")


class FileEntry(BaseModel):
    """One file of an artifact: path relative to the folder, size in bytes, sha256.

    A file of weights may have none: ``certificate.json``, which has one, digests its tensors.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str | None


class InputRef(BaseModel):
    """What a stage read: where it lay, and the key that identifies its content."""

    model_config = ConfigDict(frozen=True)

    path: str
    key: str


class Manifest(BaseModel):
    """What an artifact is and how it came to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: Kind
    stage: str
    verb: str
    engine: str
    key: str | None
    """Fingerprint of the request; None when a person started the verb without a plan."""
    argv: list[str]
    config: dict[str, Any] = {}
    inputs: dict[str, InputRef] = {}
    facts: dict[str, Any] = {}
    """What later stages need and must not retype: tp, pp, lora_r, lora_alpha, template, ..."""
    metrics: dict[str, Any] = {}
    files: list[FileEntry] = []
    versions: dict[str, str] = {}
    started_at: str
    finished_at: str
    seconds: float


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a published artifact, or None where there is none.

    Raises:
        BadInput: there is one, but it is not readable as a manifest.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(
            "the manifest is damaged", value=error.errors()[0]["msg"], source=path, remedy="Remove the folder and run the stage again."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically, after everything else in ``folder`` is on disk."""
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new folder beside ``final`` that takes its place when the block ends well.

    Raises:
        BadInput: ``final`` exists and is not an empty folder, or its parent can not be written.
        Infrastructure: the disk is full.
    """
    staging = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    with writing(final):
        refuse_existing(final)
        _make_folder(staging)
    try:
        with writing(final):
            yield staging
            with contextlib.suppress(FileNotFoundError):
                final.rmdir()  # an empty folder made by hand, as the runbook's mkdir -p does
            staging.rename(final)
            sync(final.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into errors of the contract."""
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise BadInput(
            "the output can not be written", value=error, source=target, remedy="Choose a folder this user may write to."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Infrastructure("the disk is full", value=error, source=target, remedy="Free space there and start again.") from error
        if error.errno == errno.EROFS:
            raise BadInput("the output's file system is read-only", value=error, source=target, remedy="Choose another folder.") from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise BadInput("the output's path is not one", value=error, source=target, remedy="Choose another folder.") from error
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileNotFoundError as error:  # a parent that can not be made, as below /proc
        raise NotADirectoryError(*error.args) from error


def refuse_existing(final: Path) -> None:
    if final.is_dir() and not any(final.iterdir()):
        return
    if (final / "config.json").is_file():
        raise BadInput(
            "the output is a Hugging Face model's folder, and base weights are only ever read",
            value=final,
            remedy="Give a new folder; a conversion takes config and tokenizer from --hf-cfg-dir.",
        )
    if final.exists() or final.is_symlink():
        raise BadInput("the output exists already", value=final, remedy="Nothing is overwritten: choose another folder or remove this one.")


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def describe_files(folder: Path, *, certified: Collection[str] = ()) -> list[FileEntry]:
    """Every file below ``folder`` but the manifest, sorted by path; those ``certified`` are not read."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    names = {path: str(path.relative_to(folder)) for path in paths}
    return [
        FileEntry(path=name, size=path.stat().st_size, sha256=None if name in certified else sha256_file(path))
        for path, name in names.items()
    ]


def versions() -> dict[str, str]:
    """Installed versions of everything that can change a result."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def require_artifact(folder: Path, kinds: Iterable[Kind]) -> Manifest:
    """The manifest of a finished artifact of one of ``kinds``.

    Raises:
        BadInput: it is not there, not finished, or something else.
    """
    manifest = read_manifest(folder)
    wanted = tuple(kinds)
    if manifest is None:
        raise BadInput("no finished artifact", value=folder, remedy="The stage that makes it has not ended well: look at its log.")
    if manifest.kind not in wanted:
        raise BadInput(f"the artifact is a {manifest.kind}, not a {' or '.join(wanted)}", value=folder)
    return manifest


def link(target: Path, name: Path) -> None:
    """Point the symbolic link ``name`` at ``target``, replacing an older link."""
    name.parent.mkdir(parents=True, exist_ok=True)
    temporary = name.with_name(f".{name.name}.{uuid.uuid4().hex[:8]}")
    temporary.symlink_to(os.path.relpath(target, name.parent))
    temporary.replace(name)


def sync(path: Path) -> None:
    """Bring to the disk what a file holds, or which names a folder holds: a rename in it may not outlive a power cut before."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def facts_of(manifest: Manifest | None) -> Mapping[str, Any]:
    return {} if manifest is None else manifest.facts
