"""An export to Hugging Face.

2.1.0 reads config and weights of the base model in --save-dir and writes ``mg2hf`` beside them; later versions read them in --hf-cfg-dir.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen3_ops.mindspeed.request import Request
from qwen3_ops.mindspeed.success import hf_folder


@contextmanager
def base_in_place(request: Request, *, base: Path) -> Iterator[None]:
    """Links to the base model's files in the output folder while the tool runs; its tokenizer beside the weights afterwards."""
    if request.value("--save-model-type") != "hf":
        yield
        return
    files = [] if request.has("--hf-cfg-dir") else sorted(file for file in base.iterdir() if file.is_file())
    links = [request.output / file.name for file in files]
    for link in links:
        link.symlink_to(base.absolute() / link.name)
    try:
        yield
    finally:
        for link in links:
            link.unlink(missing_ok=True)
    from qwen3_ops.native.checkpoint.hf import TOKENIZER_FILES

    made = hf_folder(request.output)
    for name in TOKENIZER_FILES:
        if (base / name).is_file() and not (made / name).exists():
            shutil.copyfile(base / name, made / name)
