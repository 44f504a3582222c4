"""A checkpoint is data: whatever its pickle tries is refused, and nothing runs."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from malicious_pickles import content, samples, write_checkpoint_file
from qwen3_ops.errors import BadInput
from qwen3_ops.native.checkpoint import unpickle
from qwen3_ops.native.checkpoint.mcore import open_checkpoint
from qwen3_ops.native.checkpoint.rank_file import RankFile


@pytest.mark.parametrize("attack", samples(Path("x")))
def test_attack_is_refused(attack, tmp_path):
    marker = tmp_path / "ran"
    rank = tmp_path / "ckpt" / "iter_0000001" / "mp_rank_00" / "model_optim_rng.pt"
    write_checkpoint_file(rank, samples(marker)[attack])
    (tmp_path / "ckpt" / "latest_checkpointed_iteration.txt").write_text("1")
    with pytest.raises(BadInput, match="refused"):
        open_checkpoint(tmp_path / "ckpt")
    assert not marker.exists()
    assert not hasattr(argparse.Namespace, "injected")
    assert not hasattr(unpickle.ModelType, "injected")


def test_the_samples_are_real(tmp_path):
    """Python's own unpickler runs them, so that a refusal means something."""
    marker = tmp_path / "ran"
    for attack in ("os.system", "eval", "INST", "STACK_GLOBAL"):
        sample = tmp_path / "sample.pkl"
        sample.write_bytes(samples(marker)[attack])
        subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(sample)!r}, 'rb'))"], check=True)
        assert marker.exists(), attack
        marker.unlink()


def test_harmless_content_of_the_same_form_is_read(tmp_path):
    """The refusals above are not for the form of the samples' files."""
    empty = pickle.GLOBAL + b"argparse\nNamespace\n" + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    write_checkpoint_file(tmp_path / "rank.pt", content(empty))
    assert RankFile(tmp_path / "rank.pt").args == argparse.Namespace()


def test_compressed_entries_are_refused(tmp_path):
    """torch never compresses; a small file that unfolds to a huge one is not unfolded."""
    write_checkpoint_file(tmp_path / "rank.pt", bytes(1 << 20), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match="compressed"):
        RankFile(tmp_path / "rank.pt")


def test_rng_state_is_admitted_and_not_built(golden):
    """A real training checkpoint holds numpy arrays; no numpy object comes of them."""
    rank = RankFile(golden / "ckpt" / "lora_only_tp1pp1" / "iter_0000100" / "mp_rank_00" / "model_optim_rng.pt")
    assert rank.iteration == 100
    assert all("numpy" not in type(value).__module__ for value in vars(rank.args).values())
