"""Alpaca-like records from a seed: varied enough that a tokenizer's cache does not answer everything."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

_COMMON = (
    "the of and to in is that for it as with on be at by this are from or an have not which one you were all their there been more when "
    "will can if other about into time has some than its only new could these two may then do first any like my now over such our even "
    "most made after also many must before through back years where much way well down should because each people just those how too "
    "little state good very make world still own see work long here between both life being under never day same another know year while "
    "last might great old off come since against go came right used take three states himself few house use during without again place "
    "around however home small found thought went say part once general high upon school every does got united left number course war "
    "until always away something fact though water less public put think almost hand enough far look head system better set told nothing "
    "night end why called find going look asked later knew point next program city business give group toward young days let room word "
    "following describe explain write list sentence summarise translate classify difference example answer question story recipe function "
    "temperature energy history language computer science market customer email paragraph poem energy environment climate health exercise"
)
_HEADS = (
    "con",
    "re",
    "pro",
    "inter",
    "trans",
    "micro",
    "under",
    "over",
    "photo",
    "bio",
    "geo",
    "hydro",
    "para",
    "sub",
    "mis",
    "auto",
    "de",
)
_STEMS = (
    "spect",
    "form",
    "graph",
    "duct",
    "port",
    "struct",
    "script",
    "vert",
    "mit",
    "gress",
    "tain",
    "nov",
    "mark",
    "stat",
    "fer",
    "scop",
)
_TAILS = ("ation", "ing", "ed", "able", "ive", "or", "ment", "s", "ology", "ically", "ness", "al", "ity", "ure", "ists", "")
_CHINESE = "今天天气很好我们一起去公园散步请把下面的句子翻译成英文并解释它的意思机器学习模型需要大量数据训练结果表明"
_CODE = "def {0}({1}, limit={2}):\n    for index in range(limit):\n        {1}.append(index * {2})\n    return {1}\n"
_RARE_SHARE = 0.06  # of all words; with it a word has about 1.3 tokens of Qwen3's, as English prose has
_ORDERS = ("Describe", "Explain how", "Write a short text about", "List five facts on", "Rewrite", "Compare", "Why does", "Summarise")


def write_alpaca(path: Path, *, records: int, seed: int) -> None:
    """``records`` JSON lines of instruction, input (empty in six of ten) and output; the same for the same seed."""
    with path.open("w", encoding="utf-8") as file:
        for record in alpaca(records=records, seed=seed):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def alpaca(*, records: int, seed: int) -> Iterator[dict[str, str]]:
    writer = _Writer(random.Random(seed))  # noqa: S311
    for _ in range(records):
        yield writer.record()


class _Writer:
    """Frequent English words by Zipf's law, rare ones made of parts; some numbers, code and Chinese."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        rare = [head + stem + tail for head in _HEADS for stem in _STEMS for tail in _TAILS]
        source.shuffle(rare)
        common = _COMMON.split()
        self._words = [*common, *rare]
        frequent = [1 / (rank + 12) for rank in range(len(common))]
        seldom = _RARE_SHARE / (1 - _RARE_SHARE) * sum(frequent) / len(rare)
        self._weights = list(accumulate([*frequent, *[seldom] * len(rare)]))

    def record(self) -> dict[str, str]:
        draw = self._random
        order = f"{draw.choice(_ORDERS)} {self._clause(draw.randint(4, 14))}."
        given = self._text(draw.randint(8, 40)) if draw.random() < 0.4 else ""
        return {"instruction": order, "input": given, "output": self._text(int(draw.lognormvariate(3.45, 0.75)) + 1)}

    def _text(self, words: int) -> str:
        draw = self._random
        kind = draw.random()
        if kind < 0.03:
            return _CODE.format(*self._some(2), draw.randint(2, 999))
        if kind < 0.05:
            return "".join(draw.choices(_CHINESE, k=words)) + "。"
        sentences = []
        while words > 0:
            length = min(words, draw.randint(5, 18))
            sentences.append(self._clause(length).capitalize() + draw.choice((".", ".", ".", "?", ":", "!\n", ".\n\n")))
            words -= length
        return " ".join(sentences)

    def _clause(self, words: int) -> str:
        chosen = self._some(words)
        if self._random.random() < 0.2:
            chosen.append(str(self._random.randint(0, 2030)))
        if words > 9:
            chosen[words // 2] += ","
        return " ".join(chosen)

    def _some(self, count: int) -> list[str]:
        return self._random.choices(self._words, cum_weights=self._weights, k=count)
