"""Looking for many texts at once finds what looking for each of them finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen3_ops.mindspeed.diagnosis.needles import group_by_common_part
from qwen3_ops.mindspeed.diagnosis.table import SIGNATURES, signature_of

WORDS = st.text(alphabet="abcd ", min_size=1, max_size=12)


@given(st.sets(WORDS, max_size=12))
def test_every_needle_stands_once_below_a_part_of_itself(needles):
    groups = group_by_common_part(needles)
    assert sorted(needle for _, below in groups for needle in below) == sorted(needles)
    assert all(part in needle for part, below in groups for needle in below)


def test_needles_with_a_part_in_common_share_a_question():
    assert len(group_by_common_part(["could not find", "could not load", "is not there", "ERR00100", "ERR00200"])) == 2


NEEDLES = st.sampled_from(sorted({needle for row in SIGNATURES for needle in row.needles} | {row.example for row in SIGNATURES}))


@given(st.lists(NEEDLES | st.text(max_size=20), max_size=4).map(" ".join))
def test_the_first_row_that_a_line_fits_is_found(line):
    fitting = (row for row in SIGNATURES if any(needle in line for needle in row.needles) and row.matches(line))
    assert signature_of(line) is next(fitting, None)
