"""``--tokenizer-backend tiktoken``: the same ids, or a refusal."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_ops.errors import BadInput
from qwen3_ops.native.data import fast_bpe
from qwen3_ops.native.data.flags import FLAGS
from qwen3_ops.native.data.samples import open_tokenizer
from qwen3_ops.native.data.tokenizer import Tokenizer

TOKENIZER = Path(__file__).parents[2] / "data" / "data" / "tok512"
PIECES = st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>",
        "<think>",
        "\u0338",
        "e\u0301",
        "\u212b",
        "  ",
        "\r\n",
        "\u00a0\n",
        "'S",
        "'\u017f",
        "12",
        "\x00\ue000\x00",
    ]
)
TEXT = st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), PIECES), max_size=8).map("".join)


def _tokenizer(folder=TOKENIZER, prompt_type="qwen"):
    tokenizer = Tokenizer(folder)
    tokenizer.use_template(prompt_type)
    return tokenizer


SLOW, FAST = _tokenizer(), _tokenizer()
FAST.use_tiktoken()


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, max_size=6))
def test_any_texts_get_the_same_ids(texts):
    assert FAST.encode_batch(texts) == SLOW.encode_batch(texts)


def test_every_character_gets_the_same_ids():
    """The planes that have any; a text that normalisation changes would not be given to tiktoken."""
    numbers = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200)]
    characters = [character for character in map(chr, numbers) if unicodedata.is_normalized("NFC", character)]
    texts = [
        "".join(f"a{character}1 {character}\n" for character in characters[start : start + 64]) for start in range(0, len(characters), 64)
    ]
    assert FAST.encode_batch(texts) == SLOW.encode_batch(texts)


def test_tokens_that_a_template_adds_are_found():
    slow, fast = _tokenizer(prompt_type="llama3"), _tokenizer(prompt_type="llama3")
    fast.use_tiktoken()
    assert fast.encode_batch(["a<|eot_id|>b"]) == slow.encode_batch(["a<|eot_id|>b"])


def test_the_data_set_is_the_same(preprocess, write):
    records = [
        {"instruction": f"Nenne {number} Wörter 你好", "input": "", "output": "e\u0301 <|im_end|> ja" * number} for number in range(40)
    ]
    path = write("a.jsonl", "\n".join(json.dumps(record) for record in records))
    argv = ["--input", str(path), "--handler-name", "AlpacaStyleInstructionHandler", "--prompt-type", "qwen"]
    slow = {file.name: file.read_bytes() for file in preprocess(argv).folder.iterdir()}
    fast = {file.name: file.read_bytes() for file in preprocess([*argv, "--tokenizer-backend", "tiktoken"]).folder.iterdir()}
    assert fast == slow


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["model"].update(byte_fallback=True), "model.byte_fallback"),
        (lambda content: content["model"].update(type="WordPiece"), "read"),
        (lambda content: content.update(normalizer={"type": "NFKC"}), "normalizer"),
        (lambda content: content["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\w+"}), "pattern"),
        (lambda content: content["pre_tokenizer"]["pretokenizers"].append({"type": "Digits", "individual_digits": True}), "further"),
        (lambda content: content["model"]["merges"].reverse(), "order of the merges"),
        (lambda content: content["model"]["merges"].pop(), "no merge makes"),
        (lambda content: content["added_tokens"][0].update(lstrip=True), "how it finds"),
        (lambda content: content["added_tokens"][-1].update(content="<|im_end|>>"), "begins another token"),
    ],
)
def test_another_kind_of_tokenizer_is_refused(tmp_path, change, reason):
    folder = tmp_path / "tok"
    shutil.copytree(TOKENIZER, folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BadInput, match=reason):
        _tokenizer(folder).use_tiktoken()


def test_other_ids_are_noticed_at_the_start(monkeypatch):
    monkeypatch.setattr(fast_bpe.FastBpe, "_reference", lambda self, texts: [b"" for _ in texts])
    with pytest.raises(BadInput, match="other ids"):
        _tokenizer().use_tiktoken()


def test_other_ids_are_noticed_in_the_first_batch():
    tokenizer = _tokenizer()
    tokenizer.use_tiktoken()
    tokenizer._fast._reference = lambda texts: [b"" for _ in texts]
    with pytest.raises(BadInput, match="other ids"):
        tokenizer.encode_batch(["a"])


def test_a_text_that_the_pattern_gives_up_on_is_left_to_tokenizers(monkeypatch):
    tokenizer = _tokenizer()
    tokenizer.use_tiktoken()

    def give_up(text, *, allowed_special):
        raise ValueError("Regex error while tokenizing")

    monkeypatch.setattr(tokenizer._fast._encoding, "encode_to_numpy", give_up)
    assert tokenizer.encode_batch(["a b", "c"]) == SLOW.encode_batch(["a b", "c"])


@pytest.mark.parametrize(("size", "pattern", "fast"), [(4 << 20, None, True), ((4 << 20) - 1, None, False), (4 << 20, r"\w+", False)])
def test_auto_takes_it_for_large_inputs_of_its_kind(tmp_path, size, pattern, fast):
    folder = tmp_path / "tok"
    shutil.copytree(TOKENIZER, folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if pattern is not None:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    argv = ["--input", "-", "--tokenizer-name-or-path", str(folder), "--output-prefix", "-", "--handler-name", "GeneralPretrainHandler"]
    flags, _ = FLAGS.parse(argv)
    tokenizer, _ = open_tokenizer(flags, size=size)
    assert tokenizer.by_tiktoken is fast
