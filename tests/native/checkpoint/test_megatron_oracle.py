"""Real megatron-core loads what is written here and computes what transformers computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("megatron.core", reason="megatron-core is not installed: pip install 'qwen3-ops[mcore]' (Python 3.11)")
transformers = pytest.importorskip("transformers")

RANK = Path(__file__).with_name("megatron_rank.py")


@pytest.mark.parametrize("model", ["hf_tiny", "hf_tiny_tied"])
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (2, 2)])
def test_logits(model, tp, pp, golden, tmp_path, convert):
    hf = golden / "ckpt" / model
    convert(load="hf", save="mg", load_dir=hf, save_dir=tmp_path / "mg", tp=tp, pp=pp)
    command = [sys.executable, "-W", "ignore", str(RANK), str(tmp_path / "mg"), str(tp), str(pp)]
    files = [str(tmp_path / "rendezvous"), str(tmp_path / "logits.pt")]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread)
        for rank in range(tp * pp)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0] * (tp * pp), "\n".join(said)[-4000:]
    reference = transformers.AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    with torch.no_grad():
        expected = reference(torch.arange(16).unsqueeze(0)).logits[0]
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert (found - expected).abs().max() < 1e-5
