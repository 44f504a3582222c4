"""`npu-smi info` as data: the layouts of A2 (one chip a card) and A3 (two).

Each chip has two lines between rules of ``+---+``::

    | NPU   Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
    | Chip  Phy-ID    | Bus-Id          | AICore(%)    Memory-Usage(MB)  HBM-Usage(MB)         |

A2 prints no Phy-ID. The second die of an A3 card prints ``-`` for the card's power. Values
``a / b`` may stand without the space before ``/``. The table of processes follows below.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from qwen3_ops.errors import BadInput

_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)")
_IDLE_HBM_MB = 6144  # an idle 64 GB device shows 2.9 to 3.4 GB


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One device.

    Attributes:
        npu, chip: as `npu-smi -i NPU -c CHIP` wants them.
        device: N of ``/dev/davinciN``.
        health: ``OK``, ``Warning``, ``Alarm``, ``Critical`` or ``UNKNOWN``.
        hbm_used, hbm_total: MB.
        processes: pids on the host.
    """

    npu: int
    chip: int
    device: int
    name: str
    health: str
    hbm_used: int
    hbm_total: int
    processes: tuple[int, ...] = ()

    @property
    def is_free(self) -> bool:
        """Healthy, without a process and with no more memory in use than an idle device has."""
        return self.health == "OK" and not self.processes and self.hbm_used <= _IDLE_HBM_MB


@dataclass(frozen=True, kw_only=True)
class NpuInfo:
    """What `npu-smi info` prints; ``version`` is that of npu-smi and the driver."""

    version: str
    chips: tuple[Chip, ...]


def parse_info(text: str) -> NpuInfo:
    """Raises BadInput: the text is no such table."""
    version = re.search(r"\bVersion:\s*(\S+)", text)
    lines = list(_rows(text))
    chips = list(_chips(lines))
    if version is None or not chips:
        raise BadInput("npu-smi printed no table of devices", value=text.strip()[:200] or "nothing", source="npu-smi info")
    running = _processes(lines)
    return NpuInfo(
        version=version[1],
        chips=tuple(
            Chip(**{**vars(chip), "device": number, "processes": tuple(running.get((chip.npu, chip.chip), ()))})
            for number, chip in _numbered(chips)
        ),
    )


def _rows(text: str) -> Iterator[list[str]]:
    """Cells of the lines that have some."""
    for line in text.splitlines():
        if line.strip().startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def _chips(rows: list[list[str]]) -> Iterator[Chip]:
    for first, second in itertools.pairwise(rows):
        name = re.fullmatch(r"(\d+)\s+(\S+)", first[0])
        place = re.fullmatch(r"(\d+)(?:\s+(\d+))?", second[0])
        if len(first) != 3 or len(second) != 3 or name is None or place is None or not re.match(r"[0-9A-Fa-f]{4}:", second[1]):
            continue
        usages = _USAGE.findall(second[2])
        if not usages:
            continue
        used, total = map(int, usages[-1])  # memory first, where the product has any, then HBM
        yield Chip(
            npu=int(name[1]), chip=int(place[1]), device=-1 if place[2] is None else int(place[2]),
            name=name[2], health=first[1], hbm_used=used, hbm_total=total,
        )  # fmt: skip


def _numbered(chips: list[Chip]) -> Iterator[tuple[int, Chip]]:
    """The Phy-ID where it is printed; else cards are counted, each with as many dies as the fullest one."""
    dies = max(chip.chip for chip in chips) + 1
    for chip in chips:
        yield (chip.device if chip.device >= 0 else chip.npu * dies + chip.chip), chip


def _processes(rows: list[list[str]]) -> dict[tuple[int, int], list[int]]:
    """(NPU, chip) -> pids; rows look like ``| 0  0 | 4711 | python | 3200 |``."""
    found: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        place = re.fullmatch(r"(\d+)\s+(\d+)", row[0])
        if place is not None and len(row) >= 4 and row[1].isdigit():
            found.setdefault((int(place[1]), int(place[2])), []).append(int(row[1]))
    return found
