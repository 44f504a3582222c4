"""What a plan asks to be there, without weights: for tests that prepare data only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "data" / "data" / "tok512"
_SHAPE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "tie_word_embeddings": False, "max_position_embeddings": 512, "torch_dtype": "bfloat16", "hidden_act": "silu", "attention_bias": False,
}  # fmt: skip


def request(folder: Path) -> dict[str, Any]:
    """Fields of a run on the recipe ``tiny``; makes the model's and MMLU's folder below ``folder``."""
    model, mmlu = folder / "model", folder / "mmlu"
    shutil.copytree(TOKENIZER, model, dirs_exist_ok=True)
    (model / "config.json").write_text(json.dumps(_SHAPE))
    (model / "model.safetensors").write_bytes(b"")
    mmlu.mkdir(exist_ok=True)
    (mmlu / "x_test.csv").write_text("q,1,2,3,4,A\n")
    return {"recipe": "tiny", "model_dir": str(model), "task_data_path": str(mmlu)}
