"""Where a start of training goes on, decided from its folder alone."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from qwen3_ops.cli import app
from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.layout import ParallelLayout
from qwen3_ops.mindspeed.resume import Start, choose_start, note_launch
from qwen3_ops.mindspeed.shards import gather, iterations, missing_ranks, retain
from qwen3_ops.native.checkpoint.tracker import TRACKER, read_tracker
from qwen3_ops.stages.resume import resume
from stand_ins import write_ranks

TP2_PP4 = ParallelLayout(tensor_model_parallel_size=2, pipeline_model_parallel_size=4)


def choose(request, **settings):
    return choose_start(request, Events(), **settings)


def test_a_new_folder_is_a_new_start(request_of):
    assert choose(request_of()) == Start(iteration=0, is_done=False)


def test_the_last_complete_iteration_is_taken_and_what_is_newer_removed(request_of):
    request = request_of()
    write_ranks(request.output, 5)
    write_ranks(request.output, 10)
    write_ranks(request.output, 15, leave_out="mp_rank_01_003", tracker=False)  # killed while saving
    assert choose(request, may_repair=False) == Start(iteration=10, is_done=False)
    assert list(iterations(request.output)) == [5, 10, 15]
    assert choose(request) == Start(iteration=10, is_done=False)
    assert list(iterations(request.output)) == [5, 10]


def test_a_damaged_iteration_is_left_for_the_one_before(request_of, capsys):
    request = request_of()
    write_ranks(request.output, 5)
    write_ranks(request.output, 10)
    file = request.output / "iter_0000010" / "mp_rank_00_002" / "model_optim_rng.pt"
    file.write_bytes(file.read_bytes()[:40])  # torch writes the archive's directory last
    assert choose(request).iteration == 5
    assert (read_tracker(request.output), list(iterations(request.output))) == (5, [5])
    assert "iteration 10 is damaged, going back to 5" in capsys.readouterr().err


def test_nothing_complete_is_a_new_start(request_of):
    request = request_of()
    write_ranks(request.output, 5, leave_out="mp_rank_00_000")
    assert choose(request) == Start(iteration=0, is_done=False)
    assert not iterations(request.output) and read_tracker(request.output) is None


def test_a_finished_training_has_nothing_to_do(request_of):
    request = request_of()
    write_ranks(request.output, 20)
    assert choose(request) == Start(iteration=20, is_done=True)
    write_ranks(request.output, 30)
    with pytest.raises(BadInput, match="further than --train-iters before: 30 > 20"):
        choose(request)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"devices": 16}, "data_parallel 1 -> 2"),
        ({"devices": 16, "context-parallel-size": 2}, "context_parallel 1 -> 2"),
    ],
)
def test_a_changed_layout_is_refused(request_of, changed, said):
    note_launch(request_of())
    write_ranks(request_of().output, 5)
    with pytest.raises(BadInput, match=f"another layout: .*{said}"):
        choose(request_of(**changed))


def test_the_ranks_of_another_layout_are_refused_without_a_record(request_of):
    write_ranks(request_of().output, 5, tp=4, pp=2)
    with pytest.raises(BadInput, match="iter_0000005 holds mp_rank_02_000"):
        choose(request_of())


def test_what_the_command_says_when_it_goes_on():
    """As sft_resume, lora_resume_lora_load and lora_resume_load_full of the stored runs were started."""
    first = ["--load", "/base", "--finetune", "--no-load-optim", "--no-load-rng", "--save", "/save", "--tensor-model-parallel-size", "2"]
    assert resume(first, saved="/save") == ["--load", "/save", "--save", "/save", "--tensor-model-parallel-size", "2"]
    lora = [*first, "--lora-r", "16"]
    assert resume(lora, saved="/save")[:2] == ["--load", "/save"]
    assert "--lora-load" not in resume(lora, saved="/save")
    filtered = resume([*lora, "--lora-ckpt-filter"], saved="/save")
    assert (filtered[:2], filtered[-2:]) == (["--load", "/base"], ["--lora-load", "/save"])
    assert not {"--finetune", "--no-load-optim", "--no-load-rng"} & set(filtered)


def test_the_last_checkpoints_are_kept(tmp_path):
    for iteration in (5, 10, 15):
        write_ranks(tmp_path, iteration)
    write_ranks(tmp_path, 20, tracker=False)  # being written: not counted, not touched
    assert retain(tmp_path, keep_last=2) == ["iter_0000005"]
    assert list(iterations(tmp_path)) == [10, 15, 20]
    assert retain(tmp_path, keep_last=2) == []


def test_the_parts_of_several_nodes_are_gathered(tmp_path):
    """As 2 x 8 devices with TP2 PP4 leave them: stages 0 and 1 on node 0 with the tracker, 2 and 3 on node 1."""
    nodes = [tmp_path / "node0", tmp_path / "node1"]
    for number, node in enumerate(nodes):
        write_ranks(node, 100, tracker=number == 0)
        for folder in (node / "iter_0000100").iterdir():
            if int(folder.name[-3:]) // 2 != number:
                (folder / "model_optim_rng.pt").unlink()
                folder.rmdir()
    with pytest.raises(BadInput, match="in none of the folders: iter_0000100/mp_rank_00_002"):
        gather(nodes[:1], tmp_path / "all", layout=TP2_PP4)
    with pytest.raises(BadInput, match="none of the folders has a tracker"):
        gather(nodes[1:], tmp_path / "all", layout=TP2_PP4)
    options = ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "4"]
    assert CliRunner().invoke(app, ["gather-ckpt", *map(str, nodes), "--save-dir", str(tmp_path / "all"), *options]).exit_code == 0
    assert read_tracker(tmp_path / "all") == 100
    assert missing_ranks(tmp_path / "all" / "iter_0000100", TP2_PP4) == []
    gather(nodes, nodes[1], layout=TP2_PP4)  # in place
    assert (nodes[1] / TRACKER).read_text() == "100"


@pytest.mark.parametrize("text", ["", "\0\0"])
def test_a_tracker_that_never_reached_the_disk_names_the_newest_iteration(request_of, text):
    request = request_of()
    write_ranks(request.output, 5)
    write_ranks(request.output, 10)
    (request.output / TRACKER).write_text(text)
    assert choose(request, may_repair=False).iteration == 10
    assert choose(request).iteration == 10
    assert read_tracker(request.output) == 10


def test_a_part_on_a_disk_that_is_not_shared_is_no_half_written_checkpoint(request_of):
    request = request_of()
    assert choose(request, is_shared=False) == Start(iteration=0, is_done=False)
    write_ranks(request.output, 5, leave_out="mp_rank_01_003")
    with pytest.raises(BadInput, match=r"only its own part .*iter_0000005.*gather-ckpt"):
        choose(request, is_shared=False)
    assert list(iterations(request.output)) == [5]
