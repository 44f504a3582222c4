"""The flags of other versions of MindSpeed-LLM, as differences from 2.1.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from qwen3_ops.config import MindspeedVersion
from qwen3_ops.stages import scripts
from qwen3_ops.stages.script import Script


def in_dialect(script: Script, version: MindspeedVersion) -> Script:
    """``script`` as that version has it."""
    return _DIALECTS[version](script)


def _newer(script: Script) -> Script:
    """26.x: its converter is ``convert_ckpt_v2.py``, which takes dtype and shape from the source itself.

    That one can not write a merged checkpoint of Megatron's; the old converter, still there in 26.x, does it.
    """
    converter = _CONVERTERS_V2.get(script.name)
    if converter is not None:
        return converter
    if not script.program.endswith("_gpt.py") and script.program not in ("inference.py", "evaluation.py"):
        return script
    flags = script.flags.replace("--variable-seq-lengths", "--no-pad-to-seq-lengths")
    return replace(script, flags=f"{flags} --transformer-impl local")


_CONVERT_V2 = """
    --load-model-type hf --save-model-type mg
    --target-tensor-parallel-size {tensor_model_parallel_size} --target-pipeline-parallel-size {pipeline_model_parallel_size}
    {target_experts} {virtual_stages} --load-dir {hf} --save-dir {output} --model-type-hf {model_type_hf}
"""
_LORA_V2 = " --lora-load {adapter} --lora-r {lora_r} --lora-alpha {lora_alpha} --lora-target-modules {lora_target_modules}"

_EXPORT_V2 = """
    --load-model-type mg --save-model-type hf
    --load-dir {checkpoint} --save-dir {output} --hf-cfg-dir {hf} --model-type-hf {model_type_hf}
"""

_CONVERTERS_V2: Mapping[str, Script] = {
    script.name: replace(
        script,
        program="convert_ckpt_v2.py",
        flags=flags,
        faults=tuple(fault for fault in script.faults if fault.flag != "--params-dtype"),
    )
    for script, flags in (
        (scripts.CONVERT_HF_TO_MCORE, _CONVERT_V2),
        (scripts.EXPORT_TO_HF, _EXPORT_V2),
        (scripts.EXPORT_LORA_TO_HF, _EXPORT_V2 + _LORA_V2),
    )
}

_DIALECTS: Mapping[MindspeedVersion, Callable[[Script], Script]] = {"2.1.0": lambda script: script, "26.0.0": _newer}
