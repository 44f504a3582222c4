"""Which tokens are trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_ops.native.data.blocks import IDS, LABELS, MASK
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.samples import InstructionEncoder
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.data.turns import IGNORE_INDEX

TOKENIZER = Path(__file__).parents[2] / "data" / "data" / "tok512"
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<{"), max_size=20)
CONVERSATION = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)


def _encoder(prompt_type):
    argv = ["--input", "-", "--tokenizer-name-or-path", str(TOKENIZER), "--output-prefix", "-", "--prompt-type", prompt_type]
    flags, _ = FLAGS.parse([*argv, "--handler-name", "SharegptStyleInstructionHandler"])
    tokenizer = Tokenizer(TOKENIZER)
    tokenizer.use_template(prompt_type)
    return InstructionEncoder(flags, tokenizer, prompt_type), tokenizer


ENCODERS = {prompt_type: _encoder(prompt_type) for prompt_type in ("qwen", "qwen3", "llama2")}


@pytest.mark.parametrize("prompt_type", ENCODERS)
@settings(max_examples=50, deadline=None)
@given(conversation=CONVERSATION)
def test_exactly_the_answers_are_trained(prompt_type, conversation):
    encoder, tokenizer = ENCODERS[prompt_type]
    turns = [{"from": role, "value": text} for pair in conversation for role, text in zip(("human", "gpt"), pair, strict=True)]
    made = encoder.encode([(7, {"conversations": turns})])
    ids, mask, labels = (np.asarray(made.blocks[name].tokens) for name in (IDS, MASK, LABELS))
    assert made.first is not None
    assert (made.first.row, made.ledger.tokens) == (7, len(ids))
    assert len(ids) == len(mask) == len(labels)
    assert mask.all()
    trained = labels != IGNORE_INDEX
    assert np.array_equal(labels[trained], ids[trained])
    assert tokenizer.decode(ids[trained].tolist(), skip_special_tokens=False) == "".join(
        answer + "<|im_end|>" for _, answer in conversation
    )
    assert made.ledger.trainable_tokens == int(trained.sum())
