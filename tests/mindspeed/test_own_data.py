"""The order that the real tool keeps beside the data is a run's own."""

from __future__ import annotations

import pytest

from qwen3_ops.command import Command
from qwen3_ops.mindspeed.own_data import with_own_data

INDEX = "d_train_indexmap_64ns_42s_decoder_packed_idx.npy"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("d_packed_input_ids_document.bin", "d_packed_input_ids_document.idx", "other_document.bin", INDEX, "manifest.json"):
        (folder / name).write_text(name)
    return folder


def command(data_path, **env):
    return Command(env=env, cwd="/", argv=["torchrun", "posttrain_gpt.py", "--data-path", str(data_path), "--split", "100,0,0"])


def test_the_data_is_read_through_links_without_the_order_of_before(data, tmp_path):
    made = with_own_data(command(data / "d"), tmp_path / "stage" / "data" / "node0")
    assert made.argv[3] == str(tmp_path / "stage" / "data" / "node0" / "d")
    links = {path.name: path.resolve() for path in (tmp_path / "stage" / "data" / "node0").iterdir()}
    assert links == {name: data / name for name in ("d_packed_input_ids_document.bin", "d_packed_input_ids_document.idx")}
    assert made.argv[:3] + made.argv[4:] == command("").argv[:3] + command("").argv[4:]


def test_an_order_of_an_earlier_start_is_gone(data, tmp_path):
    folder = tmp_path / "stage"
    with_own_data(command(data / "d"), folder)
    (folder / INDEX).write_text("of another split")
    with_own_data(command(data / "d"), folder)
    assert not (folder / INDEX).exists()
    assert (data / INDEX).exists()  # not ours


@pytest.mark.parametrize("prefix", ["nothing/here", "data/e"])
def test_a_data_set_that_is_not_here_is_left_to_the_tool_to_refuse(data, tmp_path, prefix):
    given = command(tmp_path / prefix)
    assert with_own_data(given, tmp_path / "stage") is given


def test_a_command_without_data(tmp_path):
    given = Command(env={}, cwd="/", argv=["python", "convert_ckpt.py"])
    assert with_own_data(given, tmp_path / "stage") is given
