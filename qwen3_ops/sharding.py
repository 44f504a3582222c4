"""A planned data set made in parts: ``preprocess-data --shard`` once a part, then ``merge-data``.

The bytes are those of one run, so neither the number of parts nor the parts are in the data set's
key: whoever needs it finds it, however it was made. A part's key is made of the data set's and of its place.
"""

from __future__ import annotations

import json
from pathlib import Path

from qwen3_ops.artifacts import InputRef, sha256_text
from qwen3_ops.errors import BadInput
from qwen3_ops.flags import get_flag, replace_flag
from qwen3_ops.plan import StagePlan

_PART, _WHOLE, _PREFIX = "preprocess-data", "merge-data", "--output-prefix"


def shards(count: int) -> list[str]:
    """Every part as ``--shard`` takes it: 0/N to N-1/N."""
    return [f"{index}/{count}" for index in range(count)]


def part_of(stage: StagePlan, shard: str) -> StagePlan:
    """The part ``shard`` of the data set that ``stage`` makes, a stage with a folder and a key of its own.

    Raises:
        BadInput: the stage is not one that our ``preprocess-data`` runs.
    """
    _require_ours(stage)
    key = sha256_text(json.dumps([stage.key, shard]))[:16]
    output = Path(stage.output).parents[1] / "prepare_dataset_part" / key
    prefix = output / Path(get_flag(stage.argv, _PREFIX) or "").name
    return stage.model_copy(
        update={
            "name": f"{stage.name}.{shard.replace('/', '-of-')}",
            "title": f"{stage.title}, part {shard}",
            "argv": [*replace_flag(stage.argv, _PREFIX, str(prefix)), "--shard", shard],
            "key": key,
            "output": str(output),
            "kind": "dataset_part",
        }
    )


def joined_from(stage: StagePlan, count: int) -> StagePlan:
    """``stage`` itself, to be made by joining its ``count`` parts.

    Raises:
        BadInput: see :func:`part_of`.
    """
    parts = {shard: part_of(stage, shard) for shard in shards(count)}
    prefix = get_flag(stage.argv, _PREFIX) or ""
    return stage.model_copy(
        update={
            "title": f"{stage.title}, joined from {count} parts",
            "verb": _WHOLE,
            "argv": ["--input", *(part.output for part in parts.values()), _PREFIX, prefix],
            "inputs": {shard: InputRef(path=part.output, key=part.key) for shard, part in parts.items()},
        }
    )


def _require_ours(stage: StagePlan) -> None:
    if stage.verb != _PART or stage.engine != "native":
        raise BadInput(
            "only the native preprocess-data makes parts", value=f"{stage.name}: {stage.verb} by the engine {stage.engine}",
            source="data_shards", remedy="Set data_shards to 1, or cpu_engine to native.",
        )  # fmt: skip
