"""What every room's tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)  # the same examples every time: a red run can be run again
settings.load_profile("repeatable")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the stored truth: ``ckpt``, ``data``, ``train``, ``commands``."""
    return DATA


@pytest.fixture(scope="session")
def tokenizer_dir() -> Path:
    return DATA / "data" / "tok512"


@pytest.fixture(scope="session")
def hf_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Path:
    """A complete tiny Qwen3 folder: 4 layers, 8 heads, 4 groups, vocabulary 512."""
    folder = tmp_path_factory.mktemp("hf") / "model"
    shutil.copytree(DATA / "ckpt" / "hf_tiny", folder)
    for file in tokenizer_dir.iterdir():
        shutil.copy(file, folder / file.name)
    return folder
