"""Whether a stage did what it was asked for, by MindSpeed-LLM's own signs and by what lies on the disk.

The exit status is only one of them: it is 0 after a missing checkpoint (random weights), after a checkpoint that could not
be read, after exceptions in MMLU, and after a SIGTERM in the middle of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from qwen3_ops.layout import ParallelLayout
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnosis
from qwen3_ops.mindspeed.diagnosis.signature import Fault
from qwen3_ops.mindspeed.observation import Observation
from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.shards import missing_ranks
from qwen3_ops.native.checkpoint.tracker import iteration_folder, read_tracker

_HF_FOLDER = "mg2hf"


def contradiction(request: Request, seen: Observation) -> Diagnosis | None:
    """What the lines say against the request, whatever the exit status: random weights, or another layout than asked for."""
    if "random weights" in seen.signs:
        return Diagnosis.of("checkpoint-missing")
    world = seen.world
    if world is None or request.is_conversion:  # its loader and its saver each tell a layout of their own
        return None
    asked = request.layout
    wanted = (asked.tensor_model_parallel_size, asked.pipeline_model_parallel_size, asked.context_parallel_size, request.devices)
    got = (world.tensor_parallel, world.pipeline_parallel, world.context_parallel, world.world_size)
    if wanted == got:
        return None
    return Diagnosis(
        name="layout-clamped",
        cause=f"{_sizes(*wanted)} was asked for, MindSpeed-LLM took {_sizes(*got)}: it lowers what does not fit, silently",
        remedy="Give at least TP x PP x CP devices: --nproc_per_node times --nnodes.",
        fault=Fault.BAD_INPUT,
    )


def _sizes(tp: int, pp: int, cp: int, devices: int) -> str:
    return f"TP{tp} PP{pp} CP{cp} on {devices} devices"


def hf_folder(output: Path) -> Path:
    """Where an export lies: ``mg2hf`` in ``--save-dir``, or that folder itself."""
    return output / _HF_FOLDER if (output / _HF_FOLDER).is_dir() else output


def missing_signs(request: Request, seen: Observation) -> list[str]:
    """What a stage that ended well has said and written, and this one has not."""
    return list(_SIGNS[request.verb](request, seen))


def missing_on_disk(request: Request) -> list[str]:
    """What a training on several hosts must have left behind, whichever of them printed the lines."""
    return list(_checkpoint(request.output, request.layout, iteration=request.train_iters)) if request.verb == "train" else []


def _train(request: Request, seen: Observation) -> Iterator[str]:
    yield from _loaded(request, seen)
    iterations = request.train_iters
    if "training done" not in seen.signs:
        yield "the line `[after training is done]`"
    if iterations not in seen.saved:
        yield f"the line that iteration {iterations} was saved"
    yield from _checkpoint(request.output, request.layout, iteration=iterations)


def _convert(request: Request, seen: Observation) -> Iterator[str]:
    if request.value("--save-model-type") == "hf":
        yield from _hf_model(hf_folder(request.output))
        return
    if "conversion done" not in seen.signs:
        yield "the line `Done!`"
    yield from _checkpoint(request.output, request.layout, iteration=None)


def _preprocess(request: Request, seen: Observation) -> Iterator[str]:
    prefix = Path(request.value("--output-prefix") or "").name
    wanted = 2 if request.value("--handler-name") == "GeneralPretrainHandler" else 6
    whole = [path for path in request.output.glob(f"{prefix}*_document.*") if path.suffix in (".bin", ".idx") and path.stat().st_size > 0]
    if len(whole) < wanted:
        yield f"{wanted} files {prefix}*_document.bin and .idx that are not empty, there are {len(whole)}"


def _generate(request: Request, seen: Observation) -> Iterator[str]:
    yield from _loaded(request, seen)
    if not seen.texts.end():
        yield "text after `MindSpeed-LLM:`"


def _evaluate(request: Request, seen: Observation) -> Iterator[str]:
    yield from _loaded(request, seen)
    if seen.accuracy is None:
        yield "the line `mmlu acc = ...`"
    elif seen.subjects and seen.accuracy.questions != sum(subject.questions for subject in seen.subjects.values()):
        yield "the lines of all subjects"


def _loaded(request: Request, seen: Observation) -> Iterator[str]:
    if request.load is not None and not seen.loaded:
        yield f"the line `successfully loaded checkpoint from {request.load}`"


def _checkpoint(folder: Path, layout: ParallelLayout, *, iteration: int | None) -> Iterator[str]:
    named = read_tracker(folder)
    if named is None or (iteration is not None and named != iteration):
        yield f"the tracker of {folder} naming {'an' if iteration is None else ''} iteration {iteration or ''}".rstrip()
        return
    if missing := missing_ranks(iteration_folder(folder, named), layout):
        yield f"the files of {', '.join(missing)}"


def _hf_model(folder: Path) -> Iterator[str]:
    """Links are the base model's files (hf_export.py), not what was made."""
    made = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and path.stat().st_size > 0]
    if "config.json" not in {path.name for path in made}:
        yield f"{folder.name}/config.json"
    if not any(path.suffix in (".safetensors", ".bin") for path in made):
        yield f"weights in {folder.name}"


_SIGNS: Mapping[str, Callable[[Request, Observation], Iterator[str]]] = {
    "train": _train,
    "convert-ckpt": _convert,
    "preprocess-data": _preprocess,
    "generate": _generate,
    "evaluate": _evaluate,
}
