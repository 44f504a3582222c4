from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qwen3_ops.errors import BadInput, ExitCode, Infrastructure, Interrupted
from qwen3_ops.mindspeed.nodes import Nodes, place_of_this_host


def nodes(tmp_path, rank):
    return Nodes.of(folder=tmp_path, count=2, node_rank=rank)


def test_who_starts_which_nodes(tmp_path):
    assert nodes(tmp_path, None).ranks == (0, 1)
    assert (nodes(tmp_path, 1).ranks, nodes(tmp_path, 1).others) == ((1,), (0,))
    far, farther = "192.0.2.77", "192.0.2.78"  # of no machine
    assert place_of_this_host((), count=1, node_rank=None) is None
    assert place_of_this_host(("127.0.0.1", "127.0.0.2"), count=2, node_rank=None) is None
    assert place_of_this_host((far, "127.0.0.1"), count=2, node_rank=None) == 1
    assert place_of_this_host((far, farther), count=2, node_rank=1) == 1
    with pytest.raises(BadInput, match="--node-rank N"):
        place_of_this_host((far, farther), count=2, node_rank=None)
    with pytest.raises(BadInput, match="no such node: 2"):
        place_of_this_host((far, farther), count=2, node_rank=2)


def test_one_hosts_failure_is_told_to_the_others(tmp_path):
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    first.begin()
    assert first.look() is None
    second.begin()
    assert first.look() is None
    second.failed(ExitCode.BAD_INPUT, "out of memory")
    failure = first.look()
    assert (failure.name, failure.exit_code, failure.source) == ("other-node", ExitCode.BAD_INPUT, "node1")
    assert "out of memory" in failure.cause
    with pytest.raises(Infrastructure, match="node 1 failed"):
        first.wait_for_others(seconds=60)


def test_a_failure_of_an_earlier_start_is_forgotten(tmp_path):
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    second.begin()
    second.failed(ExitCode.INFRASTRUCTURE, "gone")
    os.utime(tmp_path / "nodes" / "node1.json", (1, 1))
    first.begin()
    assert first.look() is None


def test_the_first_host_waits_for_the_others_and_they_for_its_word(tmp_path):
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    first.begin()
    second.begin()
    naps = []

    def nap(after):
        def sleep(seconds):
            naps.append(seconds)
            if len(naps) == 3:
                after()

        return sleep

    first.wait_for_others(seconds=60, sleep=nap(second.ended))
    assert len(naps) == 3
    naps.clear()
    second.wait_for_others(seconds=60, sleep=nap(first.done))
    assert len(naps) == 3
    with pytest.raises(Infrastructure, match="they do not end"):
        nodes(tmp_path / "other", 0).wait_for_others(seconds=0)


def test_a_host_whose_command_ended_well_is_interrupted_with_the_first(tmp_path):
    """After SIGTERM to one host all save and end with status 0; only the first host's log says why."""
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    first.begin()
    second.begin()
    second.ended()
    first.failed(ExitCode.INTERRUPTED, "stopped by SIGTERM")
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        second.wait_for_others(seconds=60)


def test_a_host_that_prints_nothing_hears_the_one_that_does(tmp_path):
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    assert first.heard(speaker=1)  # its log is not here yet, or on a disk of its own: it is for that host to find it silent
    assert not second.heard(speaker=1)
    log = tmp_path / "node1.log"
    log.write_text("iteration 1\n")
    assert (first.heard(speaker=1), first.heard(speaker=1)) == (True, False)
    log.write_text("iteration 1\niteration 2\n")
    assert (first.heard(speaker=1), first.heard(speaker=1)) == (True, False)
    assert not nodes(tmp_path, None).heard(speaker=1)


def test_a_word_that_is_being_replaced_is_read_the_next_time(tmp_path, monkeypatch):
    """A shared disk answers ESTALE where another host has replaced the file meanwhile."""
    first, second = nodes(tmp_path, 0), nodes(tmp_path, 1)
    first.begin()
    second.begin()

    def stale(path, **how):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        assert first.look() is None
