"""Success by the signs of the real tool, never by the exit status alone."""

from __future__ import annotations

import pytest

from qwen3_ops.errors import ExitCode, Interrupted
from qwen3_ops.events import Events, read_events
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser, Diagnosis
from qwen3_ops.mindspeed.diagnosis.signature import Fault
from qwen3_ops.mindspeed.diagnosis.table import BY_NAME
from qwen3_ops.mindspeed.judge import EngineFailed, judge
from qwen3_ops.mindspeed.log_lines import parse_line
from qwen3_ops.mindspeed.observation import Observation
from qwen3_ops.mindspeed.success import contradiction
from qwen3_ops.mindspeed.supervisor import Ended
from stand_ins import LINE, write_ranks

WORLD = (
    "using world size: 8, data-parallel size: 1, context-parallel size: 1 tensor-model-parallel size: 2, pipeline-model-parallel size: 4 "
)
LOADED = "  successfully loaded checkpoint from /base [ t 0, p 0 ] at iteration 0"
TRAINED = [
    WORLD,
    LOADED,
    LINE.format(20, 20, "1.0"),
    "  successfully saved checkpoint from iteration      20 to /out",
    "[after training is done] datetime: x",
]


def ended(*lines, codes=(0,), stopped_by=None, killed_for=None):
    seen, diagnoser = Observation(), Diagnoser()
    for line in "\n".join(lines).splitlines():
        for event in parse_line(line):
            seen.add(event)
        seen.texts.feed(line)
        diagnoser.feed(line)
    return Ended(seen=seen, diagnoser=diagnoser, exit_codes=list(codes), stopped_by=stopped_by, killed_for=killed_for, failed=None)


def fails(request, how):
    with pytest.raises(EngineFailed) as raised:
        judge(request, how, Events())
    return raised.value


def test_training_that_did_everything(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    judge(request, ended(*TRAINED), Events())


@pytest.mark.parametrize("left_out", [1, 3, 4])
def test_training_without_one_of_its_signs_is_no_success(request_of, left_out):
    request = request_of()
    write_ranks(request.output, 20)
    error = fails(request, ended(*TRAINED[:left_out], *TRAINED[left_out + 1 :]))
    assert (error.diagnosis.name, error.exit_code) == ("unexplained", ExitCode.UNEXPECTED)
    assert "exit status 0" in str(error)


def test_training_without_its_files_is_no_success(request_of):
    request = request_of()
    assert "the tracker of" in str(fails(request, ended(*TRAINED)))
    write_ranks(request.output, 20, leave_out="mp_rank_01_002")
    assert "the files of mp_rank_01_002" in str(fails(request, ended(*TRAINED)))


def test_an_exit_status_is_heeded_where_all_signs_are_there(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    assert fails(request, ended(*TRAINED, codes=[1])).exit_code == ExitCode.UNEXPECTED
    assert fails(request, ended(*TRAINED, codes=[-9])).diagnosis.name == "host-out-of-memory"


@pytest.mark.parametrize(
    "name", ["checkpoint-missing", "checkpoint-missing-exit", "checkpoint-damaged", "optimizer-missing", "rng-missing"]
)
def test_what_ends_with_status_0_is_found_all_the_same(request_of, name):
    error = fails(request_of(), ended(WORLD, BY_NAME[name].example))
    assert (error.diagnosis.name, error.exit_code) == (name, ExitCode.BAD_INPUT)


def test_random_weights_are_no_success_whatever_follows(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    assert fails(request, ended(BY_NAME["checkpoint-missing"].example, *TRAINED)).diagnosis.name == "checkpoint-missing"


def test_a_layout_that_was_lowered_in_silence_is_no_success(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    clamped = WORLD.replace("world size: 8", "world size: 4").replace("pipeline-model-parallel size: 4", "pipeline-model-parallel size: 2")
    error = fails(request, ended(clamped, *TRAINED[1:]))
    assert (error.diagnosis.name, error.exit_code) == ("layout-clamped", ExitCode.BAD_INPUT)
    assert "TP2 PP4 CP1 on 8 devices was asked for, MindSpeed-LLM took TP2 PP2 CP1 on 4 devices" in str(error)


def test_a_save_after_sigterm_is_an_interruption(request_of):
    saved = "  successfully saved checkpoint from iteration       7 to /out"
    lines = [WORLD, LOADED, LINE.format(7, 20, "1.0"), saved, "exiting program after receiving SIGTERM."]
    with pytest.raises(Interrupted, match="after iteration 7 of 20: iteration 7 is saved"):
        judge(request_of(), ended(*lines), Events())
    with pytest.raises(Interrupted, match="stopped by SIGTERM: this start has saved nothing"):
        judge(request_of(), ended(WORLD, codes=[-9], stopped_by="SIGTERM"), Events())


def test_training_that_ends_while_it_is_stopped_is_done(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    judge(request, ended(*TRAINED, stopped_by="SIGTERM"), Events())


def test_the_diagnosis_is_one_block_in_the_log_and_one_event(request_of, tmp_path, capsys):
    events = Events(tmp_path / "events.jsonl")
    with pytest.raises(EngineFailed):
        judge(request_of(), ended("before", BY_NAME["hccl-socket-timeout"].example, codes=[1]), events)
    shown = capsys.readouterr().out
    assert "=== diagnosis: hccl-socket-timeout ===" in shown and "HCCL_CONNECT_TIMEOUT" in shown and "| before" in shown
    (event,) = read_events(tmp_path / "events.jsonl")
    assert (event["event"], event["name"], event["fault"], event["exit_code"], event["retried"]) == (
        "diagnosis", "hccl-socket-timeout", "infrastructure", 75, True,
    )  # fmt: skip


def test_conversion(request_of, tmp_path):
    request = request_of("convert-ckpt", kind="mcore_checkpoint", target_tensor_parallel_size=2, target_pipeline_parallel_size=4)
    assert "the line `Done!`" in str(fails(request, ended("INFO:root:Starting saver...")))
    write_ranks(request.output, 1)
    judge(request, ended("INFO:root:Done!"), Events())
    loader = (
        WORLD.replace("size: 8", "size: 1").replace("parallel size: 2", "parallel size: 1").replace("parallel size: 4", "parallel size: 1")
    )
    judge(request, ended(loader, WORLD, "INFO:root:Done!"), Events())
    assert contradiction(request, ended(loader).seen) is None  # while the loader has spoken and the saver has not
    to_hf = request_of("convert-ckpt", kind="hf_model", save_model_type="hf")
    assert "out/config.json" in str(fails(to_hf, ended("INFO:root:Done!")))
    for name in ("config.json", "model.safetensors"):  # the base model's, which the real tool wants to find there
        (tmp_path / name).write_text("base")
        (request.output / name).symlink_to(tmp_path / name)
    assert "weights in out" in str(fails(to_hf, ended("INFO:root:Done!")))
    (request.output / "mg2hf").mkdir()
    (request.output / "mg2hf" / "config.json").write_text("{}")
    (request.output / "mg2hf" / "model.safetensors").write_text("x")
    judge(to_hf, ended("INFO:root:Done!"), Events())


def test_data(request_of):
    request = request_of("preprocess-data", kind="dataset", output_prefix="/x/alpaca", handler_name="AlpacaStyleInstructionHandler")
    for key in ("input_ids", "attention_mask", "labels"):
        for suffix in ("bin", "idx"):
            (request.output / f"alpaca_packed_{key}_document.{suffix}").write_text("x")
    judge(request, ended(), Events())
    (request.output / "alpaca_packed_labels_document.idx").write_text("")
    assert "there are 5" in str(fails(request, ended()))


def test_generation_and_mmlu(request_of):
    text = ["INFO:root:", "You:", "hi", "", "MindSpeed-LLM:", "there"]
    judge(request_of("generate", kind="generation"), ended(WORLD, LOADED, *text), Events())
    assert "text after" in str(fails(request_of("generate", kind="generation"), ended(WORLD, LOADED)))
    request = request_of("evaluate", kind="evaluation")
    lines = [WORLD, LOADED, "INFO:root:law has 1 corrects in 2 questions, with accuracy 0.5"]
    judge(request, ended(*lines, "INFO:root:mmlu acc = 1/2=0.5"), Events())
    assert "mmlu acc" in str(fails(request, ended(*lines)))
    assert "all subjects" in str(fails(request, ended(*lines, "INFO:root:mmlu acc = 1/3=0.3")))


SILENT = Diagnosis(name="no-output", cause="nothing was printed", remedy="", fault=Fault.INFRASTRUCTURE)
OTHER = Diagnosis(name="other-node", cause="node 1 failed", remedy="", fault=None, code=ExitCode.INFRASTRUCTURE)


@pytest.mark.parametrize(
    ("killed_for", "printed", "name", "code"),
    [
        (SILENT, "conversion-layers", "conversion-layers", ExitCode.BAD_INPUT),  # the saver died, its loader waits for ever
        (OTHER, "npu-out-of-memory", "npu-out-of-memory", ExitCode.BAD_INPUT),  # the other one lost its connection to this one
        (OTHER, "hccl-notify-timeout", "other-node", ExitCode.INFRASTRUCTURE),  # this one waited for the other one
        (OTHER, "collective-peer-gone", "other-node", ExitCode.INFRASTRUCTURE),
        (SILENT, None, "no-output", ExitCode.INFRASTRUCTURE),
    ],
)
def test_an_error_that_was_printed_here_explains_silence_and_other_nodes_ends(request_of, killed_for, printed, name, code):
    lines = [BY_NAME[printed].example] if printed else []
    error = fails(request_of(), ended(*lines, codes=[-9], killed_for=killed_for))
    assert (error.diagnosis.name, error.exit_code) == (name, code)
