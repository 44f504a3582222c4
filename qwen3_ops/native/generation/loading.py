"""A model ready to generate, from a Megatron-mcore checkpoint."""

from __future__ import annotations

import math

from qwen3_ops.errors import BadInput
from qwen3_ops.events import Events
from qwen3_ops.native.checkpoint.dtypes import as_torch_dtype
from qwen3_ops.native.checkpoint.mcore import open_checkpoint
from qwen3_ops.native.data.tokenizer import Tokenizer
from qwen3_ops.native.generation.flags import InferenceFlags
from qwen3_ops.native.model import Qwen3, build_model, load_full_state
from qwen3_ops.native.threads import choose_threads


def load_model(flags: InferenceFlags, *, events: Events) -> Qwen3:
    """The checkpoint in ``--load`` as one whole model.

    Raises:
        BadInput: no checkpoint there, another layout or shape than the flags', or LoRA that is not merged.
    """
    checkpoint = open_checkpoint(flags.load)
    if checkpoint.layout != flags.layout:
        raise BadInput(
            "the checkpoint's layout is not the flags'",
            value=f"{checkpoint.layout}, flags: {flags.layout}",
            source=flags.load,
            remedy="Set --tensor- and --pipeline-model-parallel-size to the checkpoint's.",
        )
    if checkpoint.lora is not None:
        raise BadInput("the checkpoint holds LoRA weights", value=flags.load, source="--load", remedy="Merge it with its base first.")
    if not math.isclose(checkpoint.model.norm_epsilon, flags.norm_epsilon):
        events.warning(f"--norm-epsilon is {flags.norm_epsilon}, but {flags.load} was made with {checkpoint.model.norm_epsilon}")
    spec = flags.model_spec()
    choose_threads(spec)
    model = build_model(spec, dtype=as_torch_dtype(flags.params_dtype_name))
    load_full_state(model, checkpoint.state(padded=True))
    return model.eval()


def load_tokenizer(flags: InferenceFlags) -> Tokenizer:
    """The tokenizer, with the eos of ``--prompt-type`` where one is given.

    Raises:
        BadInput: none there, or its ids exceed the model's vocabulary.
    """
    tokenizer = Tokenizer(flags.tokenizer_name_or_path)
    if tokenizer.vocabulary_size > flags.padded_vocab_size:
        raise BadInput(
            "the tokenizer has more entries than the model",
            value=f"{tokenizer.vocabulary_size} > --padded-vocab-size {flags.padded_vocab_size}",
            source=tokenizer.path,
            remedy="Give the tokenizer of this model.",
        )
    if flags.prompt_type is not None:
        tokenizer.use_template(flags.prompt_type)
    return tokenizer
