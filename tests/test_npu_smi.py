"""Tables as the documents of A2 and A3 show them."""

from __future__ import annotations

import pytest

from npu_smi_tables import A2, A3
from qwen3_ops.errors import BadInput
from qwen3_ops.npu_smi import parse_info


def test_a2_has_one_chip_a_card():
    info = parse_info(A2)
    assert info.version == "25.0.rc1"
    assert [(chip.device, chip.npu, chip.name, chip.health) for chip in info.chips] == [
        (0, 0, "910B3", "OK"),
        (1, 1, "910B3", "Alarm"),
        (2, 2, "910B3", "OK"),
    ]
    assert [(chip.hbm_used, chip.hbm_total) for chip in info.chips] == [(3379, 65536), (3379, 65536), (58112, 65536)]
    assert [chip.is_free for chip in info.chips] == [True, False, False]
    assert info.chips[2].processes == (4711,)


def test_a3_has_two_dies_a_card():
    chips = parse_info(A3).chips
    assert [(chip.device, chip.npu, chip.chip) for chip in chips] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]
    assert [chip.is_free for chip in chips] == [True, False, True, False]
    assert chips[1].processes == (815, 816)


def test_newer_tables_have_the_pid_in_the_container_too():
    wider = A2.replace("| 4711          | python ", "| 4711          | 12   | python ")
    assert parse_info(wider).chips[2].processes == (4711,)


@pytest.mark.parametrize("text", ["", "dcmi module initialize failed. ret is -8005"])
def test_what_is_no_table_is_refused_with_its_words(text):
    with pytest.raises(BadInput, match=text[:20] or "nothing"):
        parse_info(text)
