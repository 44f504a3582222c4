"""What the tokenizer library alone takes for the strings that preprocess-data gives it. Run as a process of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from qwen3_ops.native.data.conversation import render
from qwen3_ops.native.data.handlers import instruction_handler
from qwen3_ops.native.data.inputs import input_files, spans
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.readers import read_batches
from qwen3_ops.native.data.templates import TEMPLATES

HANDLER, PROMPT_TYPE = "AlpacaStyleInstructionHandler", "qwen"


def strings(path: Path) -> list[list[str]]:
    """Batch by batch, each different string of a batch once."""
    keys = key_map(HANDLER, None)
    handler, template = instruction_handler(HANDLER, keys), TEMPLATES[PROMPT_TYPE]
    batches = []
    for batch in read_batches(*spans(input_files(path)), wanted=keys.used_columns):
        turns = (turn for record in batch.records if isinstance(record, dict) for turn in render(handler(record), template))
        batches.append(
            [slot for slot in dict.fromkeys(slot for turn in turns for slots in turn for slot in slots) if isinstance(slot, str)]
        )
    return batches


def main(tokenizer_json: str, records: str) -> None:
    from tokenizers import Tokenizer

    batches = strings(Path(records))
    started = time.perf_counter()
    tokenizer = Tokenizer.from_file(tokenizer_json)
    loaded, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    ended = time.perf_counter()
    print(json.dumps({"load": loaded - started, "wall": ended - loaded, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
