from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qwen3_ops.artifacts import (
    Manifest,
    describe_files,
    read_manifest,
    require_artifact,
    staged_folder,
    write_atomically,
    write_manifest,
    writing,
)
from qwen3_ops.errors import BadInput, Infrastructure


def manifest(**changes):
    values = {"kind": "dataset", "stage": "s", "verb": "v", "engine": "native", "key": "k", "argv": [], "seconds": 1.0}
    return Manifest(**{**values, "started_at": "a", "finished_at": "b", **changes})


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    final = tmp_path / "store" / "artifact"
    with staged_folder(final) as staging:
        (staging / "a.txt").write_text("a")
        assert not final.exists()
        assert staging.parent == final.parent
    assert (final / "a.txt").read_text() == "a"
    assert [path.name for path in final.parent.iterdir()] == ["artifact"]


def test_nothing_is_left_of_a_folder_that_failed(tmp_path):
    final = tmp_path / "artifact"
    with pytest.raises(RuntimeError), staged_folder(final) as staging:
        (staging / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_made_by_hand_is_taken(tmp_path):
    (tmp_path / "artifact").mkdir()
    with staged_folder(tmp_path / "artifact") as staging:
        (staging / "a").write_text("a")
    assert (tmp_path / "artifact" / "a").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "kept").write_text("x")
    with pytest.raises(BadInput, match="exists already"), staged_folder(tmp_path):
        pass
    assert (tmp_path / "kept").read_text() == "x"


def test_base_weights_are_never_an_output(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="only ever read"), staged_folder(tmp_path):
        pass


def test_a_full_disk_is_infrastructure_and_a_refusal_is_bad_input(tmp_path):
    with pytest.raises(Infrastructure, match="disk is full"), writing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(BadInput, match="can not be written"), writing(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


@pytest.mark.parametrize("place", ["/proc/no-such-folder/out", "/dev/null/out", f"/tmp/{'a' * 300}"])
def test_a_path_that_can_not_be_is_bad_input(place):
    with pytest.raises(BadInput, match="output"), staged_folder(Path(place)):
        raise AssertionError("there is no such folder to write into")


def test_a_manifest_says_what_is_in_the_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"bb")
    write_manifest(tmp_path, manifest(files=describe_files(tmp_path)))
    (entry,) = read_manifest(tmp_path).files
    assert (entry.path, entry.size) == ("sub/b", 2)
    assert entry.sha256 == "3b64db95cb55c763391c707108489ae18b4112d783300de38e033b4c98c3deaf"
    assert describe_files(tmp_path) == [entry]


def test_only_finished_artifacts_of_the_right_kind_are_accepted(tmp_path):
    with pytest.raises(BadInput, match="no finished artifact"):
        require_artifact(tmp_path, ["dataset"])
    write_manifest(tmp_path, manifest())
    assert require_artifact(tmp_path, ["dataset"]).key == "k"
    with pytest.raises(BadInput, match="is a dataset, not a hf_model"):
        require_artifact(tmp_path, ["hf_model"])


def test_a_damaged_manifest_is_told(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        read_manifest(tmp_path)


def test_a_file_that_could_not_be_written_leaves_nothing_beside_it(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "manifest.json", "{}")
    assert list(tmp_path.iterdir()) == []
