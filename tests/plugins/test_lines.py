"""Pieces of a log as lines."""

from __future__ import annotations

import pytest

from qwen3_airflow.lines import Lines


@pytest.mark.parametrize("size", range(1, 12))
def test_lines_are_the_same_however_the_log_is_cut(size):
    log = "one\r\n行 1%\r行 50%\r\r行 100%\r\n\r\rtwo\r\n\nlast\r".encode()
    lines = Lines()
    cut = [line for at in range(0, len(log), size) for line in lines.feed(log[at : at + size])]
    assert cut + lines.finish() == ["one", "行 100%", "two", "", "last"]


def test_a_bar_that_is_redrawn_for_days_takes_no_memory():
    lines = Lines()
    for step in range(10_000):
        assert lines.feed(f"\r{step} of 10000 steps".encode()) == []
    assert len(lines._rest) < 100
    assert lines.finish() == ["9999 of 10000 steps"]
