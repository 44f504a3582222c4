"""Packing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.native.data.packing import knapsacks


def test_longest_first_and_the_last_of_equals_first():
    assert knapsacks([3, 5, 3, 4], 10) == [[1, 3], [2, 0]]


def test_a_record_as_long_as_the_sequence_stands_alone():
    assert knapsacks([10, 1, 10], 10) == [[0], [2], [1]]


@given(st.lists(st.integers(1, 20)), st.just(20))
def test_every_record_once_and_none_too_full(lengths, size):
    packs = knapsacks(lengths, size)
    assert sorted(record for pack in packs for record in pack) == list(range(len(lengths)))
    assert all(sum(lengths[record] for record in pack) <= size for pack in packs)
