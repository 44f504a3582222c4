"""In runbook fidelity the runbook's faults stay: each is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen3_ops.config import RunConfig
from qwen3_ops.findings import Finding
from qwen3_ops.model import ModelSpec
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.rules.registry import rule
from qwen3_ops.stages import STAGES
from qwen3_ops.stages.paths import Paths
from qwen3_ops.stages.rendering import faults_that_stay
from qwen3_ops.stages.script import Site


@rule("fidelity")
def known_faults_stay(run: RunConfig, model: ModelSpec, stages: Sequence[StageRequest]) -> Iterator[Finding]:
    if run.fidelity != "runbook":
        return
    told: set[tuple[str, str]] = set()
    for request in stages:
        if request.stage not in STAGES:
            continue
        script = STAGES[request.stage].script_of(run)
        places = Paths(
            model="model", tokenizer="model", source="data", tasks="mmlu", output="output", load=run.load,
            inputs={name: name for name in request.inputs},
        )  # fmt: skip
        for mend in faults_that_stay(script, Site(run=run, model=model, paths=places)):
            if (script.program, mend.flag) in told:
                continue
            told.add((script.program, mend.flag))
            yield Finding(
                rule=f"{script.program}: a known fault of the runbook stays",
                fields=("fidelity",),
                values=f"fidelity = runbook: {mend.flag}",
                consequence=mend.why,
                remedy="set fidelity to mended",
                severity="warn",
            )
