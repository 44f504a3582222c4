"""The parts of a planned data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from planned_model import request as request_for_data
from qwen3_ops.artifacts import read_manifest
from qwen3_ops.errors import BadInput, ExitCode
from qwen3_ops.pipelines import StageRequest
from qwen3_ops.plan import make_plan, save_plan
from qwen3_ops.run_stage import run_stage
from qwen3_ops.sharding import joined_from, part_of, shards


@pytest.fixture
def planned(tmp_path):
    """The plan of a data set of 50 records."""
    records = [{"instruction": f"Count to {number}", "input": "", "output": "one " * number} for number in range(1, 51)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, records)) + "\n")
    fields = {"input": str(data), "handler_name": "AlpacaStyleInstructionHandler", "prompt_type": "qwen"}
    request = {**request_for_data(tmp_path), **fields}

    def plan(name: str, **fields):
        asked = {**request, "output_root": str(tmp_path / name), **fields}
        return make_plan(asked, stages=[StageRequest(name="prepare_dataset", stage="prepare_dataset")], run_id=name)

    return plan


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix in (".bin", ".idx")}


def test_parts_and_join_make_the_artifact_of_one_run(planned):
    whole, parts = planned("whole"), planned("parts", data_shards=3)
    assert run_stage(save_plan(whole), "prepare_dataset") == ExitCode.DONE
    plan_json = save_plan(parts)
    for shard in reversed(shards(3)):
        assert run_stage(plan_json, "prepare_dataset", part=shard) == ExitCode.DONE
    assert run_stage(plan_json, "prepare_dataset", join=3) == ExitCode.DONE
    one, joined = whole.stage("prepare_dataset"), parts.stage("prepare_dataset")
    assert one.key == joined.key
    assert files(one.output) == files(joined.output) != {}
    assert read_manifest(Path(joined.output)).verb == "merge-data"
    assert run_stage(plan_json, "prepare_dataset") == ExitCode.DONE  # found, not made again
    assert read_manifest(Path(joined.output)).verb == "merge-data"


def test_a_lost_part_is_made_again_and_only_it(planned):
    plan_json = save_plan(plan := planned("parts", data_shards=2))
    for how in ({"part": "0/2"}, {"part": "1/2"}, {"join": 2}):
        assert run_stage(plan_json, "prepare_dataset", **how) == ExitCode.DONE
    stage = plan.stage("prepare_dataset")
    before = files(stage.output)
    lost, kept = (Path(part_of(stage, shard).output) for shard in shards(2))
    stamp = (kept / "manifest.json").stat().st_mtime_ns
    for folder in (lost, Path(stage.output)):
        shutil.rmtree(folder)
    for how in ({"part": "0/2"}, {"part": "1/2"}, {"join": 2}):
        assert run_stage(plan_json, "prepare_dataset", **how) == ExitCode.DONE
    assert files(stage.output) == before
    assert (kept / "manifest.json").stat().st_mtime_ns == stamp


def test_a_join_of_parts_that_are_not_all_there_is_refused(planned, capsys):
    plan_json = save_plan(planned("parts", data_shards=2))
    assert run_stage(plan_json, "prepare_dataset", part="0/2") == ExitCode.DONE
    assert run_stage(plan_json, "prepare_dataset", join=2) == ExitCode.BAD_INPUT
    assert "no finished artifact" in capsys.readouterr().err


def test_every_part_has_a_key_a_folder_and_a_name_of_its_own(planned):
    stage = planned("run").stage("prepare_dataset")
    found = [part_of(stage, shard) for count in (1, 2, 3) for shard in shards(count)]
    assert len({part.key for part in found}) == len({part.output for part in found}) == len({part.name for part in found}) == 6
    assert {Path(part.output).parent.name for part in found} == {"prepare_dataset_part"}
    assert joined_from(stage, 3).key == stage.key


def test_another_engine_makes_no_parts(planned):
    stage = planned("run").stage("prepare_dataset").model_copy(update={"engine": "mindspeed"})
    with pytest.raises(BadInput, match="only the native"):
        part_of(stage, "0/2")


def test_the_plan_refuses_parts_by_another_engine(planned):
    with pytest.raises(BadInput, match="data_shards above 1 needs the native engine"):
        planned("run", data_shards=2, cpu_engine="mindspeed")
