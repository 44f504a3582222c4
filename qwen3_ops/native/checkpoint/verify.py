"""``qwen3-ops verify``: a certificate against the files, and a conversion against its inverse.

Three claims, each proven by computing it anew:

1. *result*: every stored tensor of the result has the certificate's digests, and there is no other.
2. *round trip*: converting the result back gives the source's own tensors; nothing is written.
3. *source*: where the source is at hand, converting it again gives the digests of both sides. Of a
   LoRA merge this is the merge proof: every targeted tensor is base + (alpha / r) * B @ A under the
   stated rounding and differs from the base, every other tensor is the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint import peft_adapter
from qwen3_ops.native.checkpoint.certificate import Certificate, CertificateRecorder, Side, TensorRecord, read_certificate
from qwen3_ops.native.checkpoint.dtypes import WEIGHTS
from qwen3_ops.native.checkpoint.hf import HfWeights, plan_weights
from qwen3_ops.native.checkpoint.lora import LoraSettings
from qwen3_ops.native.checkpoint.mcore_reader import VOCABULARY, open_checkpoint
from qwen3_ops.native.checkpoint.mcore_writer import Fitted, plan_checkpoint
from qwen3_ops.native.checkpoint.rank_file import FILE_NAME, RankFile
from qwen3_ops.native.checkpoint.safetensors_file import SafetensorsFile
from qwen3_ops.native.checkpoint.schema import Schema
from qwen3_ops.native.checkpoint.sharding import check_layout
from qwen3_ops.native.checkpoint.sources import Opened, Prepared, opened_hf, opened_mg
from qwen3_ops.native.checkpoint.tracker import TRACKER, iteration_folder, read_tracker
from qwen3_ops.native.checkpoint.transfer import digest, transfer

Verdict = Literal["proven", "failed", "not checked"]


class Claim(NamedTuple):
    """One line of the report."""

    claim: str
    verdict: Verdict
    detail: str


def verify(folder: Path, *, source: Path | None = None, adapter: Path | None = None) -> list[Claim]:
    """Check the conversion whose certificate lies in ``folder``.

    Args:
        source: where the source lies now; by default where the certificate says.
        adapter: the same for a merged LoRA.

    Raises:
        BadInput: no certificate.
    """
    certificate = read_certificate(folder)
    claims = [_claim("the result is what the certificate says", lambda: _recheck(folder / certificate.result.path, certificate.result))]
    claims.append(_claim("the result converts back into the source", lambda: _round_trip(folder, certificate)))
    merge = certificate.merge
    again = "the source, converted again, gives the result"
    proof = "targeted tensors are base + (alpha / r) B A and differ from the base, all others are the base's"
    return [*claims, _claim(again if merge is None else proof, lambda: _again(certificate, source, adapter))]


class _Unproven(Exception):
    """A claim can not be checked here."""


def _claim(text: str, check: Callable[[], str]) -> Claim:
    """Runs ``check``, which returns a detail, or says by an exception why the claim does not hold."""
    try:
        return Claim(text, "proven", check())
    except _Unproven as reason:
        return Claim(text, "not checked", str(reason))
    except (BadInput, ValueError) as reason:
        return Claim(text, "failed", str(reason))


def _recheck(folder: Path, side: Side) -> str:
    if side.type == "mg" and (named := read_tracker(folder)) != side.iteration:
        raise ValueError(f"{TRACKER} names iteration {named}, not {side.iteration}")
    listed = {ref.partition(":")[0] for ref in side.tensors}
    pattern = "*.safetensors" if side.iteration is None else f"{iteration_folder(Path(), side.iteration)}/*/{FILE_NAME}"
    names = sorted(listed | {str(path.relative_to(folder)) for path in folder.glob(pattern)})
    files = {name: SafetensorsFile(folder / name) if name.endswith(".safetensors") else RankFile(folder / name) for name in names}
    stored = {f"{name}:{key}" for name, file in files.items() for key in _keys(file)}
    _equal(side.tensors, {ref: _digested(files[ref.partition(":")[0]], ref, side.tensors.get(ref)) for ref in stored})
    return f"{len(stored)} tensors in {len(files)} files"


def _keys(file: RankFile | SafetensorsFile) -> list[str]:
    if isinstance(file, SafetensorsFile):
        return list(file.specs)
    prefix = [f"model{number}/" if len(file.chunks) > 1 else "" for number in range(len(file.chunks))]
    return [f"{start}{key}" for start, chunk in zip(prefix, file.chunks, strict=True) for key, value in chunk.items() if value is not None]


def _digested(file: RankFile | SafetensorsFile, ref: str, like: TensorRecord | None) -> TensorRecord | None:
    """What lies there now, in blocks as ``like`` has them."""
    if like is None:
        return None
    key = ref.partition(":")[2]
    if isinstance(file, SafetensorsFile):
        dtype, bits = file.specs[key].dtype, file.tensor(key)
    else:
        prefix, _, inner = key.rpartition("/")
        chunk = int(prefix.removeprefix("model") or 0)
        dtype, bits = file.stored(chunk, inner).dtype, file.tensor(chunk, inner)
    sizes = [size for size, _ in like.blocks]
    flat = bits.reshape(-1) if like.axis == "elements" else bits
    axis = 1 if like.axis == "columns" else 0
    if axis >= flat.ndim or min(sizes, default=0) < 0 or sum(sizes) != flat.shape[axis]:
        return None
    blocks = tuple((size, digest(piece)) for size, piece in zip(sizes, np.split(flat, np.cumsum(sizes)[:-1], axis=axis), strict=True))
    return TensorRecord(dtype=dtype.name, shape=bits.shape, axis=like.axis, blocks=blocks)


def _round_trip(folder: Path, certificate: Certificate) -> str:
    result, source = certificate.result, certificate.source
    if result.type == "peft":
        raise _Unproven("an adapter has no inverse: each A is given to several layers")
    changed = sorted({record.dtype for record in source.tensors.values()} - {result.dtype})
    if changed:
        raise _Unproven(f"the dtype changed from {' and '.join(changed)} to {result.dtype}, which can not be undone")
    opened = _open(result, folder / result.path, certificate)
    recorder = _converted(opened, source)
    found, wanted = _by_name(recorder.tensors("result")), _by_name(source.tensors)
    merged = certificate.merge.targets if certificate.merge is not None else {}
    links = [link for link in certificate.mapping if link.tensor not in merged]
    rows = result.model.padded_vocab_size
    for link in links:
        refs = [_name(ref) for ref in link.source]
        limit = rows if link.tensor in VOCABULARY else None
        if _digests(refs, found, limit) != _digests(refs, wanted, limit):
            raise ValueError(f"{link.tensor} does not come back")
    rest = f"; {len(merged)} merged ones are not the source's" if merged else ""
    cut = source.model.padded_vocab_size - rows
    return f"{len(links)} tensors, byte for byte{rest}" + (f", without {cut} padding rows of the vocabulary" if cut > 0 else "")


def _digests(refs: list[str], tensors: Mapping[str, TensorRecord], limit: int | None) -> list[str] | None:
    """Digests of the blocks of ``refs`` one behind the other, those that begin before row ``limit``."""
    if any(ref not in tensors for ref in refs):
        return None
    found, at = [], 0
    for size, value in (block for ref in refs for block in tensors[ref].blocks):
        if limit is None or at < limit:
            found.append(value)
        at += size
    return found


def _again(certificate: Certificate, source: Path | None, adapter: Path | None) -> str:
    merge = certificate.merge
    folder = source or Path(certificate.source.path)
    folders = [folder] if merge is None else [folder, adapter or Path(merge.adapter)]
    extra = (*certificate.source.extra, *(() if merge is None else merge.adapter_extra))
    gone = [item for item in (*folders, *map(Path, extra)) if not item.is_dir()]
    if gone:
        raise _Unproven(f"{gone[0]} is not there")
    opened = _open(certificate.source, folder, certificate, adapter=None if merge is None else folders[1])
    recorder = _converted(opened, certificate.result)
    _equal(certificate.source.tensors, recorder.tensors("source"))
    _equal(certificate.result.tensors, recorder.tensors("result"))
    if merge is None:
        return f"{len(certificate.result.tensors)} tensors, byte for byte"
    made = {} if opened.merging is None else opened.merging.targets
    if made != merge.targets or not any(target.changed for target in made.values()):
        raise ValueError("what the merge changed is not what the certificate says")
    same = [name for name, target in made.items() if target.changed == 0]
    exceptions = f", but for {', '.join(same)}" if same else ""
    others = len(certificate.mapping) - len(made)
    return f"{len(made)} targeted (rounding: {merge.precision}){exceptions}; {others} others"


def _open(side: Side, folder: Path, certificate: Certificate, *, adapter: Path | None = None) -> Opened:
    """A side of the conversion as a source; with ``adapter`` merged into it."""
    dtype, merge = WEIGHTS[certificate.params_dtype], certificate.merge
    if side.type == "hf":
        return opened_hf(HfWeights(folder, model_type=side.model.model_type), dtype=dtype)
    extra = tuple(map(Path, side.extra))
    checkpoint = open_checkpoint(folder, side.iteration, extra=extra)
    if adapter is None or merge is None:
        return opened_mg(checkpoint, dtype=dtype, extra=extra)
    adapter_extra = tuple(map(Path, merge.adapter_extra))
    return opened_mg(
        checkpoint,
        dtype=dtype,
        extra=extra,
        adapter=open_checkpoint(adapter, merge.adapter_iteration, extra=adapter_extra),
        adapter_extra=adapter_extra,
        settings=LoraSettings(r=merge.r, alpha=merge.alpha, target_modules=merge.target_modules),
        precision=merge.precision,
    )


def _converted(opened: Opened, target: Side) -> CertificateRecorder:
    """The digests of converting ``opened`` into the form of ``target``."""
    recorder, source, model = CertificateRecorder(), opened.source, target.model
    if target.type == "hf":
        jobs = plan_weights(model, dtype=opened.dtype).jobs
    elif target.type == "peft":
        adapter = open_checkpoint(opened.folder, opened.source_iteration, extra=opened.extra)
        if adapter.lora is None or adapter.lora_r is None:
            raise BadInput("the checkpoint holds no LoRA weights", value=opened.folder)
        jobs = peft_adapter.plan_adapter(model, lora=adapter.lora, r=adapter.lora_r, dtype=opened.dtype).jobs
        source = Prepared(adapter, dtype=opened.dtype, folder=adapter.folder)
    else:
        if target.layout is None:
            raise ValueError("the certificate does not say how the checkpoint is cut")
        check_layout(model, target.layout)
        schema = Schema(model=model, layout=target.layout, grouped_gemm=target.grouped_gemm)
        rows = model.padded_vocab_size
        jobs = plan_checkpoint(schema, iteration=target.iteration or 0, padded_vocab_size=rows, dtype=opened.dtype, lora_r=None).jobs
        source = Fitted(source, model=opened.model, rows=rows, lora_r=None)
    transfer(jobs, source, open_sink=None, recorder=recorder)
    return recorder


def _equal(wanted: Mapping[str, TensorRecord], found: Mapping[str, TensorRecord | None]) -> None:
    """Raises ValueError naming what differs."""
    same = {ref for ref in wanted.keys() & found.keys() if wanted[ref] == found[ref]}
    differing = sorted((wanted.keys() | found.keys()) - same)
    if differing:
        raise ValueError(f"{len(differing)} tensors differ, the first is {differing[0]}")


def _by_name(tensors: Mapping[str, TensorRecord]) -> dict[str, TensorRecord]:
    return {_name(ref): record for ref, record in tensors.items()}


def _name(ref: str) -> str:
    """Without the file where that may differ: a Hugging Face model may lie in one or many."""
    file, _, key = ref.partition(":")
    return key if file.endswith(".safetensors") else ref
