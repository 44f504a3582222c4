"""The tokenizer of a Hugging Face folder through the ``tokenizers`` library alone.

``transformers`` takes seconds to import and adds nothing that is needed here.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_ops.artifacts import sha256_file
from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.templates import TEMPLATES

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from qwen3_ops.native.data.fast_bpe import FastBpe

Ids = bytes
"""Token ids, 32 bits each, in this machine's byte order: joined and cut as they are, never one by one."""
INT32 = 4  # bytes

_FALLBACK_EOS = "<|endoftext|>"  # what MindSpeed-LLM gives to a tokenizer that names no eos


def to_ids(numbers: Sequence[int]) -> Ids:
    return array("i", numbers).tobytes()


class Tokenizer:
    """Encodes and decodes as ``transformers`` would with the same folder.

    Attributes:
        bos_token, eos_token, pad_token: as the folder's configuration names them, or None.

    Raises:
        BadInput: the folder holds no readable ``tokenizer.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = _tokenizer_json(folder)
        configuration = _configuration(folder)
        self.bos_token = _token_text(configuration.get("bos_token"))
        self.eos_token = _token_text(configuration.get("eos_token"))
        self.pad_token = _token_text(configuration.get("pad_token"))
        self._backend = _load(self.path)
        self._fast: FastBpe | None = None

    @cached_property
    def sha256(self) -> str:
        return sha256_file(self.path)

    @property
    def vocabulary_size(self) -> int:
        """Number of entries, added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self.token_to_id(self.bos_token)

    @property
    def eos_token_id(self) -> int:
        return self.id_of(self.eos_token)

    @property
    def pad_token_id(self) -> int:
        return self.id_of(self.pad_token or self.eos_token)

    def token_to_id(self, text: str) -> int | None:
        found: int | None = self._backend.token_to_id(text)
        return found

    def id_of(self, token: str | None) -> int:
        """As :meth:`token_to_id`, for a token that must be there.

        Raises:
            BadInput: the tokenizer names none, or does not have it.
        """
        found = None if token is None else self.token_to_id(token)
        if found is None:
            raise BadInput("the tokenizer lacks a token", value=token or "no eos_token is configured", source=self.path)
        return found

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Ids]:
        if self._fast is not None:
            return self._fast.encode_batch(texts)  # of a kind that adds none
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [to_ids(encoding.ids) for encoding in encodings]

    @property
    def by_tiktoken(self) -> bool:
        return self._fast is not None

    def use_tiktoken(self) -> None:
        """Encode batches by ``tiktoken`` from now on; the template is taken over before.

        Raises:
            BadInput: it is not installed, or would not give the same ids.
        """
        from qwen3_ops.native.data.fast_bpe import FastBpe

        self._fast = FastBpe(self.path, self._backend)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        text: str = self._backend.decode([int(index) for index in ids], skip_special_tokens=skip_special_tokens)
        return text

    def use_template(self, prompt_type: str) -> list[str]:
        """Take over the template's stop words, and its eos where it replaces the tokenizer's.

        Returns:
            The tokens that the vocabulary had to be extended by; their ids lie behind its end.

        Raises:
            BadInput: the tokenizer lacks a token that the template can not do without.
        """
        template = TEMPLATES[prompt_type]
        needed = template.markers if template.own else [token.text for token in template.tokens]
        lacking = [token for token in needed if self.token_to_id(token) is None]
        if lacking:
            raise BadInput(
                f"the tokenizer lacks tokens of the prompt type {prompt_type}",
                value=", ".join(lacking), source=self.path, remedy="Give the tokenizer of the model that is to be trained.",
            )  # fmt: skip
        if template.replace_eos:
            self.eos_token = template.stop_words[0]
        self.eos_token = self.eos_token or _FALLBACK_EOS
        self.pad_token = self.pad_token or self.eos_token
        return self._make_special([self.eos_token, *template.stop_words])

    def _make_special(self, tokens: Iterable[str]) -> list[str]:
        from tokenizers import AddedToken

        wanted = list(dict.fromkeys(tokens))
        new = [token for token in wanted if self.token_to_id(token) is None]
        self._backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in wanted])
        return new


def missing_tokens(folder: Path, prompt_type: str) -> list[str]:
    """The special tokens of ``prompt_type`` that the folder's tokenizer lacks; imports no tokenizer library.

    Raises:
        BadInput: the folder holds no readable ``tokenizer.json``.
    """
    content = _read_json(_tokenizer_json(folder))
    vocabulary = content.get("model", {}).get("vocab", {})
    pieces = vocabulary if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}  # Unigram: [piece, score]
    added = {token["content"] for token in content.get("added_tokens", [])}
    return [token for token in TEMPLATES[prompt_type].markers if token not in added and token not in pieces]


def _tokenizer_json(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadInput("no tokenizer.json", value=folder, source="--tokenizer-name-or-path", remedy="Give the model's local folder.")
    return path


def _load(path: Path) -> Backend:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise BadInput("the tokenizer can not be read", value=error, source=path) from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _configuration(folder: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            merged |= _read_json(path)
    return merged


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput("not readable as JSON", value=error, source=path) from error
    if not isinstance(content, dict):
        raise BadInput("not a JSON object", value=type(content).__name__, source=path)
    return content


def _token_text(token: Any) -> str | None:
    """Configurations name a token as text or as ``{"content": text, ...}``."""
    return token.get("content") if isinstance(token, dict) else token
