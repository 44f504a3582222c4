"""Disks as they are: full, failing, closed; and what is left when a conversion is stopped at the wrong moment."""

from __future__ import annotations

import errno
import gc
import mmap
import os
from pathlib import Path

import pytest

from qwen3_ops.errors import BadInput, Infrastructure
from qwen3_ops.native.checkpoint import disk, placed_file, tensor_file
from qwen3_ops.native.checkpoint.mcore import open_checkpoint, write_checkpoint
from qwen3_ops.native.checkpoint.placed_file import PlacedFile

TRACKER = "latest_checkpointed_iteration.txt"


@pytest.fixture
def hf(make_hf) -> Path:
    return make_hf()


@pytest.fixture
def mg(hf, tmp_path, convert) -> Path:
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=2, pp=2)
    return tmp_path / "mg"


def test_a_disk_that_fails_while_weights_are_read(mg, tmp_path, convert, monkeypatch):
    """The system's own error does not say which file it was."""

    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tensor_file.os, "preadv", preadv)
    with pytest.raises(Infrastructure, match="can not be read") as caught:
        convert(load="mg", save="mg", load_dir=mg, save_dir=tmp_path / "out")
    assert str(caught.value.source).endswith("model_optim_rng.pt")


def test_a_folder_that_may_not_be_looked_into(hf, tmp_path, convert, monkeypatch):
    def exists(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(disk.Path, "exists", exists)
    with pytest.raises(BadInput, match="the output can not be written"):
        convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "closed" / "out")


def test_a_disk_without_room_leaves_no_file_open(hf, mg, tmp_path, convert, monkeypatch):
    def full(file: object, size: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(PlacedFile, "reserve", full)
    gc.collect()  # what earlier tests left
    before = len(list(Path("/proc/self/fd").iterdir()))
    for flags in ({"load": "hf", "save": "mg", "load_dir": hf}, {"load": "mg", "save": "hf", "load_dir": mg, "hf_cfg_dir": hf}):
        with pytest.raises(Infrastructure, match="disk is full"):
            convert(save_dir=tmp_path / "out", **flags)
    gc.collect()  # the sources, which errors still held
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_iteration_that_can_not_be_replaced_stays(mg, monkeypatch):
    """Its tracker names it: there must be no moment's failure after which it is gone."""
    checkpoint, rename = open_checkpoint(mg), Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(mg, iteration=1, state=checkpoint.state(), model=checkpoint.model, layout=checkpoint.layout, dtype="bf16")
    assert open_checkpoint(mg).full_state_dict().keys() == checkpoint.full_state_dict().keys()
    assert sorted(path.name for path in mg.iterdir()) == ["certificate.json", "iter_0000001", TRACKER]


def test_the_iteration_is_on_the_disk_before_the_tracker(mg, tmp_path, monkeypatch):
    """Its folder's entry is brought there before the tracker is written, the tracker's after."""
    checkpoint, run, fsync = open_checkpoint(mg), tmp_path / "run", os.fsync
    seen: list[list[str]] = []

    def noted(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == run:
            seen.append(sorted(path.name for path in run.iterdir()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_checkpoint(run, iteration=1, state=checkpoint.state(), model=checkpoint.model, layout=checkpoint.layout, dtype="bf16")
    assert seen == [["iter_0000001"], ["iter_0000001", TRACKER]]


def test_memory_for_writing_is_shared_by_all_files(make_hf, tmp_path, convert, monkeypatch):
    """A checkpoint of hundreds of ranks needs no more buffers than are in use at once."""
    made: list[object] = []
    monkeypatch.setattr(placed_file.mmap, "mmap", lambda *args, real=mmap.mmap, **more: made.append(args) or real(*args, **more))
    hf = make_hf(layers=16, hidden=64, ffn=64)
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", pp=16)
    assert 0 < sum(args[0] == -1 for args in made) <= 4 + 2  # threads of `transfer`


def test_copied_files_are_on_the_disk_before_the_folder_has_its_name(mg, hf, tmp_path, convert, monkeypatch):
    """config.json and the tokenizer as well as the weights."""
    (hf / "tokenizer.json").write_text("{}")
    synced, fsync = set(), os.fsync

    def noted(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    convert(load="mg", save="hf", load_dir=mg, save_dir=tmp_path / "out", hf_cfg_dir=hf)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= synced
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "out" / "mg2hf" / name).read_bytes() == (hf / name).read_bytes()
