"""A small byte-level BPE tokenizer of Qwen's family: its pre-tokenizer, its normalizer, its special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen2's: contractions, words with one leading sign, single digits, signs, line breaks, spaces.
_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Qwen3's added tokens in its order, and whether decoding skips them.
_ADDED = {
    **dict.fromkeys((END_OF_TEXT, TURN_START, TURN_END), True),
    **dict.fromkeys(("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"), True),
    **dict.fromkeys(("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"), True),
    **dict.fromkeys(("<tool_call>", "</tool_call>"), False),
    **dict.fromkeys(("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"), False),
    **dict.fromkeys(("<tool_response>", "</tool_response>", "<think>", "</think>"), False),
}


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> Tokenizer:
    """Learn merges from ``texts`` until the vocabulary, added tokens included, has its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(_ADDED), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    # Markup is a token by itself and no text to learn merges from.
    plain = (part for text in texts for part in _without_markup(text))
    tokenizer.train_from_iterator(plain, trainer)
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token, special in _ADDED.items()])
    return tokenizer


def _without_markup(text: str) -> list[str]:
    for token in _ADDED:
        text = text.replace(token, "\0")
    return text.split("\0")


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The files that a released Qwen3 has: tokenizer.json, vocab.json, merges.txt and the configurations."""
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    template = resources.files("qwen3_ops.native.tiny").joinpath("samples/chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    additional = [token for token, special in _ADDED.items() if special and token != END_OF_TEXT]
    _write_json(
        folder / "special_tokens_map.json",
        {"additional_special_tokens": additional, "eos_token": _described(TURN_END), "pad_token": _described(END_OF_TEXT)},
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(tokenizer.token_to_id(token)): _described(token) | {"special": special} for token, special in _ADDED.items()
            },
            "additional_special_tokens": additional,
            "bos_token": None,
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
            "eos_token": TURN_END,
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": END_OF_TEXT,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def _described(token: str) -> dict[str, Any]:
    return {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
