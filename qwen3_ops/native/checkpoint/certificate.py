"""``certificate.json``: what a conversion did to every tensor.

Each stored tensor of the source and of the result is listed with the BLAKE3 digests of its blocks (the
elements' little-endian bytes, row by row). A block of the result that came unchanged from the source
has the source's digest, so that the mapping can be checked by comparing text; a tensor of one block
has the digest of its whole content.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen3_ops.artifacts import write_atomically
from qwen3_ops.errors import BadInput
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.model import Dtype, ModelSpec
from qwen3_ops.native.checkpoint.flags import MergePrecision
from qwen3_ops.native.checkpoint.state import Part
from qwen3_ops.native.checkpoint.transfer import Blocks

CERTIFICATE = "certificate.json"


class TensorRecord(BaseModel):
    """One stored tensor.

    Attributes:
        axis: along which its blocks lie: rows, columns, or elements of a flat buffer.
        blocks: (rows, columns or elements; BLAKE3 of its bytes).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[int, ...]
    axis: Literal["rows", "columns", "elements"]
    blocks: tuple[tuple[int, str], ...]


class Side(BaseModel):
    """The source, or the result, of a conversion.

    Attributes:
        path: of a source, absolute; of the result, relative to the certificate.
        extra: further folders of a checkpoint that is split over nodes.
        model: its ``padded_vocab_size`` is the number of rows stored.
        layout: of a checkpoint; None for a Hugging Face folder.
        tensors: ``file:key`` -> what is stored there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["hf", "mg", "peft"]
    path: str
    extra: tuple[str, ...] = ()
    iteration: int | None = None
    model: ModelSpec
    layout: ParallelLayout | None = None
    grouped_gemm: bool = False
    dtype: str | None = None
    tensors: dict[str, TensorRecord]


class Link(BaseModel):
    """Which stored tensors a whole one was read from, and which it was written to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor: str
    source: tuple[str, ...]
    result: tuple[str, ...]


class MergedTensor(BaseModel):
    """What a merge did to a targeted tensor: how many of its elements differ from the base's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elements: int
    changed: int


class Merge(BaseModel):
    """A LoRA merge: ``base + (alpha / r) * B @ A``.

    Attributes:
        precision: ``default`` rounds where PEFT 0.7.1 does, ``fp32`` once.
        targets: every targeted tensor; all others are the base's, byte for byte.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    adapter_extra: tuple[str, ...] = ()
    adapter_iteration: int
    r: int
    alpha: int
    target_modules: tuple[str, ...]
    precision: MergePrecision
    targets: dict[str, MergedTensor]


class Certificate(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = 2
    digest: Literal["blake3"] = "blake3"
    params_dtype: Dtype
    source: Side
    result: Side
    merge: Merge | None = None
    mapping: tuple[Link, ...]

    def write(self, folder: Path) -> None:
        """Into ``folder``, one tensor a line."""
        write_atomically(folder / CERTIFICATE, _readable(self.model_dump(mode="json")) + "\n")


def read_certificate(folder: Path) -> Certificate:
    """Raises BadInput where there is none, or one that is damaged."""
    path = folder / CERTIFICATE
    try:
        certificate = Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput("there is no certificate", value=path, remedy="Give the --save-dir of a convert-ckpt of qwen3-ops.") from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput("the certificate can not be read", value=error, source=path) from error
    files = [certificate.result.path, *(ref.partition(":")[0] for ref in certificate.result.tensors)]
    for file in files:
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise BadInput("the certificate is of files elsewhere", value=file, source=path, remedy="It can only prove those beside it.")
    return certificate


class CertificateRecorder:
    """Collects records from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, dict[int, tuple[Part, str, Blocks]]]] = {"source": {}, "result": {}}
        self._links: dict[str, Link] = {}

    def source(self, part: Part, axis: str, blocks: Blocks) -> None:
        self._add("source", part, axis, blocks)

    def result(self, part: Part, axis: str, blocks: Blocks) -> None:
        self._add("result", part, axis, blocks)

    def link(self, name: str, sources: Sequence[Part], results: Sequence[Part]) -> None:
        link = Link(tensor=name, source=tuple(part.ref for part in sources), result=tuple(part.ref for part in results))
        with self._lock:
            self._links[name] = link

    def tensors(self, side: Literal["source", "result"]) -> dict[str, TensorRecord]:
        """By ref; a grouped tensor's blocks, which came expert by expert, in its order."""
        found = {}
        for ref, slots in sorted(self._records[side].items()):
            (part, axis, _) = slots[min(slots)]
            blocks = tuple(block for slot in sorted(slots) for block in slots[slot][2])
            found[ref] = TensorRecord.model_construct(dtype=part.spec.dtype.name, shape=tuple(part.spec.shape), axis=axis, blocks=blocks)
        return found

    def mapping(self, names: Sequence[str]) -> tuple[Link, ...]:
        return tuple(self._links[name] for name in names if name in self._links)

    def _add(self, side: str, part: Part, axis: str, blocks: Blocks) -> None:
        with self._lock:
            self._records[side].setdefault(part.ref, {})[part.slot or 0] = (part, axis, blocks)


def _readable(content: dict[str, Any]) -> str:
    """JSON with the top levels unfolded and each tensor on one line."""
    lines = []
    for key, value in content.items():
        if key in ("source", "result"):
            tensors = ",\n".join(f"      {json.dumps(ref)}: {json.dumps(record)}" for ref, record in value.pop("tensors").items())
            head = json.dumps(value, indent=4)[:-1].rstrip()
            lines.append(f'  "{key}": {head},\n    "tensors": {{\n{tensors}\n    }}\n  }}')
        elif key == "mapping":
            links = ",\n".join(f"    {json.dumps(link)}" for link in value)
            lines.append(f'  "mapping": [\n{links}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(value, indent=4)}')
    return "{\n" + ",\n".join(lines) + "\n}"
