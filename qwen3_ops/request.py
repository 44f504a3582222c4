"""From a request (form, REST body, ``--set``) to a RunConfig, with every mistake found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec
from qwen3_ops.recipes import DEFAULT_RECIPE, RECIPES


def resolve(request: Mapping[str, Any]) -> tuple[RunConfig, list[Finding]]:
    """The recipe's values with the request's over them; ``None`` stands for the recipe's.

    Returns:
        The configuration and what is wrong with the request. Where a field has a finding
        the configuration holds the recipe's value, so that rules about others still apply.
    """
    name = request.get("recipe") or DEFAULT_RECIPE
    findings: list[Finding] = []
    if name not in RECIPES:
        findings.append(_unknown_recipe(name))
        name = DEFAULT_RECIPE
    config, more = override(RECIPES[name](), {key: value for key, value in request.items() if value is not None and key != "recipe"})
    return config, findings + more


def override(config: RunConfig, given: Mapping[str, Any]) -> tuple[RunConfig, list[Finding]]:
    """``config`` with the values of ``given``; where one is wrong, its own and a finding."""
    base = config.model_dump()
    findings = [_unknown_key(key, value) for key, value in given.items() if key not in base]
    values = {**base, **{key: value for key, value in given.items() if key in base}}
    try:
        return RunConfig.model_validate(values), findings
    except ValidationError as error:
        wrong = error.errors()
    findings += [_wrong_value(str(item["loc"][0]), item["input"], item["msg"]) for item in wrong]
    for item in wrong:
        field = str(item["loc"][0])
        values[field] = base[field]
    return RunConfig.model_validate(values), findings


def _unknown_recipe(name: object) -> Finding:
    return Finding(
        rule="recipe must be a known one",
        fields=("recipe",),
        values=f"recipe = {name!r}",
        consequence="there are no values to start from",
        remedy=f"choose one of {', '.join(sorted(RECIPES))}",
    )


_OTHER_NAMES = {"gpus_per_node": "nproc_per_node", "npus_per_node": "nproc_per_node", "tp": "tensor_model_parallel_size"} | {
    "pp": "pipeline_model_parallel_size",
    "cp": "context_parallel_size",
    "mbs": "micro_batch_size",
    "gbs": "global_batch_size",
}
"""Names of the runbook's shell variables."""

_OF_MODEL = {*ModelSpec.model_fields, "add_qkv_bias", "group_query_attention", "qk_layernorm", "swiglu", "vocab_size"}


def _unknown_key(key: str, value: object) -> Finding:
    name = key.removeprefix("--").replace("-", "_").lower()
    near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, RunConfig.model_fields, n=1)
    if name in _OF_MODEL:
        remedy = "remove it: the model's shape is read from its config.json, never typed"
    else:
        remedy = f"did you mean {near[0]}?" if near else "remove it; `qwen3-ops plan --fields` lists the fields"
    return Finding(
        rule="unknown key",
        fields=(key,),
        values=f"{key} = {value!r}",
        consequence="it would be ignored and the run would not be what was asked for",
        remedy=remedy,
    )


def _wrong_value(field: str, value: object, message: str) -> Finding:
    return Finding(
        rule=f"wrong value: {message}",
        fields=(field,),
        values=f"{field} = {value!r}",
        consequence="the stage's command line could not be rendered",
        remedy=f"see the field's description: {RunConfig.model_fields[field].description or field}",
    )
