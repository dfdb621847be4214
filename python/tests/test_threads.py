"""Threads that wait for durable records."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import ringwal
from conftest import SMALL


def in_threads(number, work):
    """Runs `work(n)` in threads, and raises what one of them has raised."""
    failures = []

    def run(n):
        try:
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread waits for ever"
    for failure in failures:
        raise failure


@pytest.mark.parametrize("durability", ["every_group", "manual", 0.002])
def test_threads_that_wait_for_their_records_end(directory, durability):
    with ringwal.open(directory, durability=durability, **SMALL) as wal:

        def work(n):
            for i in range(100):
                if i % 3 == 0:
                    lsn = wal.append(b"%d %d" % (n, i))
                    wal.wait_durable(lsn)
                elif i % 3 == 1:
                    lsn = wal.append_durable(b"%d %d" % (n, i))
                else:
                    lsn = wal.tagged(n).append_durable(b"%d %d" % (n, i))
                assert wal.durable_end() > lsn
                # It is durable: this waits for nothing.
                wal.wait_durable(lsn)

        in_threads(24, work)
        assert len(list(wal.replay())) == 2400


def test_wait_for_a_position_that_was_never_appended_fails_beside_others(wal):
    refused = threading.Event()

    def work(n):
        if n == 0:
            for _ in range(20):
                with pytest.raises(ringwal.NotAppended):
                    wal.wait_durable(1 << 40)
            refused.set()
        while not refused.is_set():
            wal.append_durable(b"x")

    in_threads(8, work)


def test_committers_of_a_full_ring_wait_for_room(directory):
    options = {**SMALL, "ring_capacity": 64 << 10}
    with ringwal.open(directory, **options) as wal:
        in_threads(16, lambda n: [wal.append_durable(b"%02d" % n * 3500) for _ in range(30)])
        assert len(list(wal.replay())) == 480


def test_closing_ends_the_waits_of_threads(directory):
    wal = ringwal.open(directory, durability="manual", **SMALL)
    started = threading.Barrier(13)

    def work(n):
        started.wait()
        if n == 12:
            wal.close()
            return
        try:
            while True:
                lsn = wal.append_durable(b"%d" % n)
                assert wal.durable_end() > lsn
        except ringwal.Closed:
            pass

    in_threads(13, work)


def test_hook_that_would_wait_is_refused_beside_committers(directory):
    refused, done = [], threading.Event()

    def archive(segment):
        for call in [wal.append_durable, lambda _: wal.wait_durable(wal.end() - 1)]:
            try:
                call(b"from the hook")
            except ringwal.WouldDeadlock as error:
                refused.append(error)
        if len(refused) >= 10:
            done.set()

    wal = ringwal.open(directory, on_sealed=archive, segment_size=64 << 10)

    def work(n):
        while not done.is_set():
            wal.append_durable(b"x" * 2000)

    with wal:
        in_threads(4, work)
        assert b"from the hook" not in [payload for _, payload in wal.replay()]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_failure_of_the_log_reaches_every_thread(tmp_path):
    """A limit of the file size makes the writes fail, in a process of its own."""
    script = """
import resource, signal, sys, threading, time, ringwal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
wal = ringwal.open(sys.argv[1], segment_size=1 << 20, ring_capacity=1 << 18, backend="std")
ended = []

def work(wait):
    try:
        while True:
            wal.wait_durable(wal.append(b"x" * 100)) if wait else wal.append_durable(b"x" * 100)
    except ringwal.Poisoned as error:
        ended.append(error.os_error)

threads = [threading.Thread(target=work, args=(n % 2,), daemon=True) for n in range(20)]
for thread in threads:
    thread.start()
time.sleep(0.05)
# The written segment is larger: every write of it fails.
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for thread in threads:
    thread.join(60)
assert len(ended) == 20 and all(ended), ended
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
