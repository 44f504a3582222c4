"""The same token ids through ``tiktoken``, several times faster, for byte-level BPE of Qwen's kind.

Why they are the same: such a vocabulary is in the order of its merges and each entry is reached by its
own merges, so that the rank of a pair and the id of what it becomes choose alike; and the pattern that
cuts a text into pieces was compared on every character of Unicode. Texts that normalisation changes
are left to ``tokenizers``. All but the characters is looked at here, before the first text; some of the
characters and the first batch of texts are encoded by both.
"""

from __future__ import annotations

import json
import random
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_ops.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Qwen2, 2.5 and 3 cut a text into pieces."""

_PLAIN_MODEL = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "fuse_unk": None, "byte_fallback": None, "ignore_merges": None,
}  # fmt: skip
_PLAIN_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
_SEPARATOR, _SEPARATOR_ID = "\x00\ue000\x00", 0x7FFFFFFF
_SEPARATOR_BYTES = _SEPARATOR_ID.to_bytes(4, sys.byteorder)  # every other id has a zero byte on top: these four stand in a row only as one
_ENTRY_STEP, _CHARACTER_STEP = 97, 61  # which vocabulary entries and characters are tried at each start


class FastBpe:
    """Encodes a batch in one call, outside the interpreter's lock.

    Args:
        path: the ``tokenizer.json`` that ``backend`` was read from; ``backend`` has taken over the template.

    Raises:
        BadInput: ``tiktoken`` is not installed, the tokenizer is of another kind, or the ids differ.
    """

    def __init__(self, path: Path, backend: Backend) -> None:
        try:
            from tiktoken import Encoding
        except ModuleNotFoundError as error:
            raise BadInput("tiktoken is not installed", source="--tokenizer-backend", remedy="pip install tiktoken") from error
        content = json.loads(path.read_text(encoding="utf-8"))
        added = backend.get_added_tokens_decoder()
        reason = _unlike(content) or _unlike_tokens(added) or _unlike_entries(content["model"]["vocab"], backend)
        if reason is not None:
            raise BadInput(
                "tiktoken can not stand in for this tokenizer", value=reason, source=path, remedy="Give --tokenizer-backend tokenizers."
            )
        ranks = {bytes([_BYTES[character] for character in piece]): number for piece, number in content["model"]["vocab"].items()}
        specials = {token.content: number for number, token in added.items()}
        self._encoding = Encoding(
            path.parent.name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={**specials, _SEPARATOR: _SEPARATOR_ID}
        )
        self._backend = backend
        self._normalize: Callable[[str], str] = backend.normalizer.normalize_str if backend.normalizer else str
        self._compared = False
        self._compare(list(_varied_texts(specials)))

    def encode_batch(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each text, 32 bits each. The first batch is compared with the reference."""
        if not self._compared:
            self._compare(texts)
            self._compared = True
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> list[bytes]:
        joined = _SEPARATOR.join(texts)
        if joined.count(_SEPARATOR) != len(texts) - 1:  # no text at all, or one that holds it
            return self._reference(texts)
        if joined.isascii() or self._normalize(joined) == joined:
            try:
                ids = self._encoding.encode_to_numpy(joined, allowed_special="all").tobytes()
            except ValueError:  # its pattern gives up on a run of a million spaces
                return self._reference(texts)
            return list(ids.split(_SEPARATOR_BYTES))
        if len(texts) == 1:
            return self._reference(texts)
        changed = [text for text in texts if not text.isascii() and self._normalize(text) != text]
        others = dict(zip(changed, self._reference(changed), strict=True))
        same = [text for text in texts if text not in others]
        others |= zip(same, self._encode(same), strict=True)
        return [others[text] for text in texts]

    def _reference(self, texts: Sequence[str]) -> list[bytes]:
        return [array("i", encoding.ids).tobytes() for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _compare(self, texts: Sequence[str]) -> None:
        for text, ours, theirs in zip(texts, self._encode(texts), self._reference(texts), strict=True):
            if ours != theirs:
                raise BadInput(
                    "tiktoken gives other ids than tokenizers", value=ascii(text[:80]), source="--tokenizer-backend",
                    remedy="Give --tokenizer-backend tokenizers, and please report the text.",
                )  # fmt: skip


def _unlike(content: Mapping[str, Any]) -> str | None:
    """What in a ``tokenizer.json`` is not as Qwen's."""
    model = content["model"]
    steps: list[dict[str, Any]] = [*(content["pre_tokenizer"] or {}).get("pretokenizers", []), {}, {}]
    cut, to_bytes, *others = steps
    made = [
        model.get("vocab", {}).get("".join(merge if isinstance(merge, list) else merge.split(" "))) for merge in model.get("merges", [])
    ]
    wanted: list[tuple[str, Any, Any]] = [
        *((f"model.{name}", model.get(name) or None, value) for name, value in _PLAIN_MODEL.items()),
        ("normalizer", (content["normalizer"] or {}).get("type", "NFC"), "NFC"),
        ("pattern", (cut.get("pattern"), cut.get("behavior"), cut.get("invert")), ({"Regex": PATTERN}, "Isolated", False)),
        ("bytes", (to_bytes.get("type"), to_bytes.get("add_prefix_space"), to_bytes.get("use_regex")), ("ByteLevel", False, False)),
        ("further pre-tokenizers", others, [{}, {}]),
        ("post_processor", (content["post_processor"] or {}).get("type", "ByteLevel"), "ByteLevel"),
        ("ids in the order of the merges", None not in made and made == sorted(set(made)), True),
        ("entries that no merge makes", len(model.get("vocab", {})) - len(made), len(_BYTES)),
    ]
    return next((f"{name}: {found}, not {value}" for name, found, value in wanted if found != value), None)


def _unlike_tokens(added: Mapping[int, AddedToken]) -> str | None:
    texts = [token.content for token in added.values()]
    for token in added.values():
        if any(getattr(token, name) != value for name, value in _PLAIN_TOKEN.items()):
            return f"how it finds {token.content}"
        if any(text != token.content and text.startswith(token.content) for text in texts):
            return f"{token.content} begins another token"
    return None


def _unlike_entries(vocabulary: Mapping[str, int], backend: Backend) -> str | None:
    for piece in list(vocabulary)[::_ENTRY_STEP]:
        if [token.id for token in backend.model.tokenize(piece)] != [vocabulary[piece]]:
            return f"its merges do not lead to its entry {piece!r}"
    return None


def _varied_texts(specials: Mapping[str, int]) -> Iterator[str]:
    """Characters of all scripts, alone and in random company, spaces of all kinds and special tokens; always the same."""
    draw = random.Random(0)  # noqa: S311
    characters = [chr(number) for number in range(1, sys.maxunicode, _CHARACTER_STEP) if not 0xD800 <= number < 0xE000]
    for start in range(0, len(characters), 64):
        yield "".join(f"a{character}b {character}1\n{character}" for character in characters[start : start + 64])
    company = [
        *" \n\r\t\x0b\x85\u00a0\u2028\u3000",
        "  ",
        "\r\n",
        "'s",
        "'LL",
        "'\u017f",
        "e\u0301",
        "\u00bd",
        "\u0663",
        "12",
        "!?",
        *specials,
    ]
    for _ in range(500):
        yield "".join(draw.choice(draw.choice((company, characters))) for _ in range(draw.randint(1, 12)))


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
