from __future__ import annotations

import pytest

from qwen3_airflow.ascend.leases import Lease, _seconds, choose
from qwen3_airflow.ascend.recipes import ascend_a2, ascend_a3
from qwen3_airflow.runtimes.base import NpusBusy
from qwen3_ops.errors import BadInput


def test_two_runs_of_eight_share_sixteen_dies_and_their_ports():
    first = choose(ascend_a3(), 8, {})
    second = choose(ascend_a3(), 8, dict.fromkeys(first.npus, "first"))
    assert (first.npus, second.npus) == (tuple(range(8)), tuple(range(8, 16)))
    assert set(first.ports.values()).isdisjoint(second.ports.values())
    assert second.ports["HCCL_IF_BASE_PORT"] - first.ports["HCCL_IF_BASE_PORT"] >= 8 * 32
    assert second.ports["HCCL_IF_BASE_PORT"] + 32 < 65536


def test_the_dies_of_a_card_go_together():
    assert choose(ascend_a3(), 1, {}).npus == (0, 1)
    assert choose(ascend_a3(), 2, {3: "other"}).npus == (0, 1)
    assert choose(ascend_a3(), 2, {0: "other", 3: "other"}).npus == (4, 5)
    assert choose(ascend_a2(), 1, {0: "other"}).npus == (1,)


def test_neighbours_come_before_the_lowest_numbers():
    assert choose(ascend_a2(), 4, {0: "other"}).npus == (4, 5, 6, 7)
    assert choose(ascend_a2(), 4, {0: "other", 7: "other"}).npus == (1, 2, 3, 4)


def test_a_third_is_told_who_holds_what():
    held = {**dict.fromkeys(range(8), "qwen3-a"), **dict.fromkeys(range(8, 16), "qwen3-b")}
    with pytest.raises(NpusBusy, match=r"8 of 16 NPUs are wanted, 0 are free: qwen3-a holds 0,1,2,3,4,5,6,7; qwen3-b holds 8,9"):
        choose(ascend_a3(), 8, held)


def test_no_npus_no_labels():
    assert Lease().labels() == {}
    assert Lease().environment() == {}


@pytest.mark.parametrize("held", [{}, {0: "other"}])
def test_more_than_the_host_has_is_refused_not_waited_for(held):
    with pytest.raises(BadInput, match=r"16 NPUs, the host has 8"):
        choose(ascend_a2(), 16, held)


def test_the_engines_clock_is_read_with_as_many_digits_as_it_has():
    """Go leaves out zeros at the end, which Python 3.10 does not take."""
    whole = _seconds("2026-11-26T05:39:19Z")
    assert _seconds("2026-11-26T05:39:19.12345Z") == pytest.approx(whole + 0.12345, abs=1e-5)
    assert _seconds("2026-11-26T06:39:19.123456789+01:00") == pytest.approx(whole + 0.123456, abs=1e-5)
