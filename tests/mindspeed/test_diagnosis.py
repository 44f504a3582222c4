from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from qwen3_ops.cli import app
from qwen3_ops.errors import BadInput, ExitCode
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser
from qwen3_ops.mindspeed.diagnosis.read import diagnose_logs
from qwen3_ops.mindspeed.diagnosis.report import block
from qwen3_ops.mindspeed.diagnosis.signature import Fault
from qwen3_ops.mindspeed.diagnosis.table import BY_NAME, SIGNATURES

BAD, INFRA, DATA, CODE = Fault.BAD_INPUT, Fault.INFRASTRUCTURE, Fault.DATA, Fault.CODE
OOM, EI0006, EI0002 = (BY_NAME[name].example for name in ("npu-out-of-memory", "hccl-socket-timeout", "hccl-notify-timeout"))
ERR99999 = "[ERROR] 2026-11-24-10:00:00 (PID:1, Device:0, RankID:0) ERR99999 UNKNOWN applicaiton exception"


def conclude(*lines, source=""):
    diagnoser = Diagnoser()
    for line in "\n".join(lines).splitlines():
        diagnoser.feed(line, source=source)
    return diagnoser.conclude()


@pytest.mark.parametrize("row", SIGNATURES, ids=lambda row: row.name)
def test_every_signature_is_told_from_its_example(row):
    found = conclude("a line before", row.example, ERR99999)
    assert (found.name, found.fault, found.remedy) == (row.name, row.fault, row.remedy)
    assert (
        found.exit_code
        == {BAD: ExitCode.BAD_INPUT, INFRA: ExitCode.INFRASTRUCTURE, DATA: ExitCode.QUALITY_GATE, CODE: ExitCode.BAD_INPUT}[row.fault]
    )
    assert found.retried == (row.fault is INFRA)
    assert row.cause in block(found)


@pytest.mark.parametrize(
    ("line", "name", "fault"),
    [
        ("RuntimeError: NPU out of memory. Tried to allocate 1.00 GiB (NPU 0; 60.97 GiB total capacity; 50.00 GiB already allocated; 50 GiB current active; 9.00 GiB free; 51.00 GiB reserved in total by PyTorch)", "npu-out-of-memory", BAD),
        ("RuntimeError: NPU out of memory. Tried to allocate 800.00 MiB (NPU 6; 29.50 GiB total capacity; 2.00 GiB already allocated; 2.00 GiB current active; 300.00 MiB free; 2.10 GiB reserved in total by PyTorch)", "npu-memory-taken", INFRA),
        ("RuntimeError: NPU out of memory. Tried to allocate 2 GiB", "npu-out-of-memory", BAD),
        ("EJ0001: Failed to initialize the HCCP process. Reason: Maybe the last training process is running.", "hccl-stale-process", INFRA),
        ("EI0019: [PID: 1] bind device failed: port 16666 is occupied", "hccl-port-taken", INFRA),
        ("RuntimeError: The server socket has failed to bind to [::]:6000 (errno: 98 - Address already in use).", "master-port-taken", INFRA),
        ("dcmi module initialize failed. ret is -8005", "device-not-mounted", BAD),
        ("traceback : Signal 9 (SIGKILL) received by PID 77", "host-out-of-memory", INFRA),
        ("[rank1]: RuntimeError: InnerRun:build/OpParamMaker.cpp:208 NPU function error: call aclnnAdd failed, error code is 561103", "operator-mismatch", CODE),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/d/enwiki_text_document.idx'", "data-index-missing", BAD),
        ("AssertionError: num_layers value from checkpoint (40) is not equal to the input argument value (36).", "checkpoint-arguments", BAD),
        ("ValueError: num_attention_heads (40) must be a multiple of tensor_model_parallel_size (16).", "layout-heads", BAD),
        ("OSError: [Errno 28] No space left on device", "disk-full", INFRA),
    ],
)  # fmt: skip
def test_other_shapes_of_the_same_failures(line, name, fault):
    found = conclude(line)
    assert (found.name, found.fault) == (name, fault)


def test_the_earliest_error_of_all_ranks_wins():
    found = conclude(EI0002, OOM)
    assert (found.name, found.rank, found.also) == ("hccl-notify-timeout", 1, ("npu-out-of-memory",))
    found = conclude("[rank3]: Traceback (most recent call last):", OOM, EI0006, EI0002)
    assert (found.name, found.rank, found.also) == ("npu-out-of-memory", 3, ("hccl-socket-timeout", "hccl-notify-timeout"))


def test_a_wrapper_yields_to_what_it_wraps():
    found = conclude(BY_NAME["hccl-call-failed"].example, EI0006)
    assert found.name == "hccl-socket-timeout"
    assert conclude(BY_NAME["hccl-call-failed"].example).name == "hccl-call-failed"


def test_err99999_never_classifies():
    assert conclude(ERR99999) is None
    found = conclude("Traceback (most recent call last):", "ZeroDivisionError: division by zero", ERR99999)
    assert (found.name, found.fault, found.exit_code, found.retried) == ("unclassified", None, ExitCode.UNEXPECTED, True)
    assert "ZeroDivisionError: division by zero" in found.cause


def test_an_unknown_exception_comes_before_the_kill_of_the_other_ranks():
    killed = BY_NAME["host-out-of-memory"].example
    found = conclude("[rank2]: Traceback (most recent call last):", "[rank2]: KeyError: 'text'", killed)
    assert (found.name, found.rank) == ("unclassified", 2)
    assert conclude(killed, "Traceback (most recent call last):", "KeyError: 'text'").name == "host-out-of-memory"


def test_a_warning_with_a_traceback_is_not_the_cause():
    lines = ["Traceback (most recent call last):", "ImportError: no fused kernel, going on without", OOM]
    assert conclude(*lines).name == "npu-out-of-memory"


def test_torchruns_own_error_is_no_cause():
    lines = ["Traceback (most recent call last):", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "]
    assert conclude(*lines) is None


def test_a_healthy_log_has_no_diagnosis(golden):
    lines = [line for path in (golden / "mindspeed").glob("*.txt") for line in path.read_text().splitlines()]
    assert conclude(*lines, "could not find arguments in the checkpoint ...", "WARNING: one-logger package is required") is None


def test_logs_of_several_nodes_are_put_in_order_by_their_times(tmp_path):
    late, early = tmp_path / "node0.log", tmp_path / "node1.log"
    late.write_text(f"fine\n{EI0006}\n")  # 10:30
    early.write_text(f"[ERROR] 2026-11-24-10:00:01 (PID:1, Device:3, RankID:11) something\n{OOM}\n")
    found = diagnose_logs([late, early])
    assert (found.name, found.source, found.printed_at) == ("npu-out-of-memory", str(early), "2026-11-24 10:00:01")


def test_without_times_a_rank_that_waited_is_not_the_first(tmp_path):
    (tmp_path / "a.log").write_text("EI0006 Getting socket times out\n")
    (tmp_path / "b.log").write_text("RuntimeError: NPU out of memory. Tried to allocate 2 GiB\n")
    assert diagnose_logs([tmp_path / "a.log", tmp_path / "b.log"]).name == "npu-out-of-memory"


def test_the_verb_ends_with_the_exit_status_of_the_class(tmp_path):
    log = tmp_path / "x.log"
    log.write_text(f"fine\n{EI0006}\n")
    result = CliRunner().invoke(app, ["diagnose", str(log)])
    assert result.exit_code == ExitCode.INFRASTRUCTURE
    assert "the next try may succeed" in result.output
    told = json.loads(CliRunner().invoke(app, ["diagnose", str(log), "--json"]).output)
    assert (told["name"], told["fault"], told["retried"]) == ("hccl-socket-timeout", "infrastructure", True)
    log.write_text("fine\n")
    assert CliRunner().invoke(app, ["diagnose", str(log)]).exit_code == 0
    with pytest.raises(BadInput, match="can not be read"):
        diagnose_logs([tmp_path / "none"])


def test_the_table_can_be_listed_and_names_are_unique():
    assert len(BY_NAME) == len(SIGNATURES)
    assert "hccl-socket-timeout" in CliRunner().invoke(app, ["diagnose", "--known"]).output
