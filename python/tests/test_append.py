"""Appending, waiting, closing."""

from __future__ import annotations

import array
import gc
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

import ringwal
from conftest import SMALL


def payloads(wal):
    return [payload for _, payload in wal.replay()]


def test_appended_records_come_back_in_order(wal):
    lsns = [wal.append(b"a"), wal.append_durable(b"b"), wal.try_append(b"c")]
    assert lsns == sorted(lsns)
    wal.wait_durable(lsns[-1])
    assert wal.durable_end() > lsns[-1]
    assert list(wal.replay()) == list(zip(lsns, [b"a", b"b", b"c"]))
    assert wal.end() == wal.sync() == wal.durable_end()


@pytest.mark.parametrize(
    "payload",
    [b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), memoryview(b"xbytesx")[1:-1]],
)
@pytest.mark.parametrize("method", ["append", "try_append", "append_durable"])
def test_every_buffer_is_a_payload(wal, method, payload):
    getattr(wal, method)(payload)
    assert payloads(wal) == [b"bytes"]


def test_strided_and_typed_buffers_are_payloads(wal):
    wal.append(memoryview(b"a-b-c")[::2])
    wal.append(array.array("H", [1, 2]))
    assert payloads(wal) == [b"abc", array.array("H", [1, 2]).tobytes()]


@pytest.mark.parametrize("other", ["text", 7, None, [1, 2], {}, object()])
@pytest.mark.parametrize("method", ["append", "try_append", "append_durable"])
def test_what_is_no_buffer_is_refused(wal, method, other):
    with pytest.raises(TypeError, match="bytes-like"):
        getattr(wal, method)(other)
    with pytest.raises(TypeError, match="bytes-like"):
        wal.append_batch([b"x", other])
    assert payloads(wal) == []


def test_methods_take_exactly_one_argument(wal):
    for arguments in [(), (b"a", b"b")]:
        with pytest.raises(TypeError):
            wal.append(*arguments)
    with pytest.raises(TypeError):
        ringwal.Wal.append(object(), b"a")


def test_empty_and_largest_records_are_appended_and_larger_ones_refused(directory):
    with ringwal.open(directory, max_record_size=100_000, **SMALL) as wal:
        wal.append(b"")
        wal.append(b"x" * 100_000)
        with pytest.raises(ringwal.RecordTooLarge) as refused:
            wal.append(b"x" * 100_001)
        assert (refused.value.len, refused.value.max) == (100_001, 100_000)
        assert [len(payload) for payload in payloads(wal)] == [0, 100_000]


def test_batch_is_appended_with_the_lsn_of_each_record(wal):
    batch = [b"debit", bytearray(b"credit"), memoryview(b"note")]
    lsns = wal.append_batch_lsns(batch)
    assert wal.append_batch(tuple(batch)) > lsns[-1]
    assert len(wal.try_append_batch(iter(batch))) == 3
    wal.sync()
    assert [wal.read(lsn).payload for lsn in lsns] == [b"debit", b"credit", b"note"]
    assert len(payloads(wal)) == 9
    with pytest.raises(ringwal.EmptyBatch):
        wal.append_batch([])
    with pytest.raises(TypeError, match="iterable"):
        wal.append_batch(b"one record")


def test_full_ring_raises_and_the_waiting_form_waits(directory):
    options = {**SMALL, "durability": "manual", "ring_capacity": 64 << 10}
    with ringwal.open(directory, **options) as wal:
        record, full = b"x" * 7000, 0
        for _ in range(2000):
            try:
                wal.try_append(record)
            except ringwal.RingFull as error:
                assert error.code == 1
                full += 1
                wal.append(record)
        assert full > 0
        assert len(payloads(wal)) == 2000


def test_threads_append_at_once_and_every_record_is_there(wal):
    def work(number):
        for i in range(50):
            wal.append_durable(b"%d %d" % (number, i))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = payloads(wal)
    assert len(records) == 16 * 50
    for number in range(16):
        mine = [record for record in records if record.split()[0] == b"%d" % number]
        assert mine == [b"%d %d" % (number, i) for i in range(50)]


def test_other_threads_run_while_one_waits(directory):
    """A wait with the interpreter's lock held would stop the thread that ends it."""
    with ringwal.open(directory, durability="manual", **SMALL) as wal:
        follower = wal.follow()
        delivered = []
        waits = threading.Thread(target=lambda: delivered.append(follower.next()))
        waits.start()
        wal.append_durable(b"ends the wait")
        waits.join()
        assert delivered[0].payload == b"ends the wait"


def test_closed_log_refuses_and_can_be_read(directory):
    wal = ringwal.open(directory, **SMALL)
    wal.append(b"kept")
    wal.close()
    wal.close()
    assert "closed" in repr(wal)
    for call in [wal.append, wal.try_append, wal.append_durable]:
        with pytest.raises(ringwal.Closed):
            call(b"late")
    with pytest.raises(ringwal.Closed):
        wal.health()
    assert payloads(wal) == [b"kept"]
    with ringwal.open(directory, must_exist=True) as wal:
        assert wal.recovery().clean
        assert payloads(wal) == [b"kept"]


def test_context_manager_closes_also_after_an_exception(directory):
    with pytest.raises(KeyError):
        with ringwal.open(directory, **SMALL) as wal:
            raise KeyError
    with pytest.raises(ringwal.Closed):
        wal.append(b"late")


def test_dropped_log_is_released(directory):
    wal = ringwal.open(directory, **SMALL)
    wal.append(b"kept")
    assert not wal.closed
    with pytest.warns(ResourceWarning, match=f"unclosed log .*{directory.name}"):
        del wal
        gc.collect()
    with ringwal.open(directory, lock_wait=0) as wal:
        assert payloads(wal) == [b"kept"]


def test_log_that_was_closed_is_dropped_without_a_warning(directory, recwarn):
    with ringwal.open(directory, **SMALL) as wal:
        pass
    assert wal.closed
    del wal
    gc.collect()
    assert not recwarn


def test_warning_of_a_dropped_log_keeps_the_exception_of_its_frame(directory):
    def work():
        wal = ringwal.open(directory, **SMALL)
        wal.append(b"kept")
        raise KeyError("the first")

    with pytest.warns(ResourceWarning):
        try:
            work()
        except KeyError as error:
            assert error.args == ("the first",)
            del error
        gc.collect()
    with ringwal.open(directory, lock_wait=0) as wal:
        assert payloads(wal) == [b"kept"]


def run(script, directory):
    return subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, timeout=60
    )


def test_interpreter_that_ends_closes_the_log(directory):
    # The thread's frame keeps the log: the interpreter never drops it.
    script = """
import ringwal, sys, threading
def work(wal):
    wal.append(b"kept")
    appended.set()
    threading.Event().wait()
appended = threading.Event()
wal = ringwal.open(sys.argv[1], durability="manual", segment_size=1 << 20)
threading.Thread(target=work, args=(wal,), daemon=True).start()
appended.wait()
"""
    ended = run(script, directory)
    assert (ended.returncode, ended.stderr) == (0, "")
    with ringwal.open(directory) as wal:
        assert wal.recovery().clean
        assert payloads(wal) == [b"kept"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_is_refused_and_the_parent_goes_on(directory):
    script = """
import os, sys, asyncio, ringwal, warnings
# The interpreter warns of every fork beside threads, such as those of the log.
warnings.simplefilter("ignore", DeprecationWarning)
wal = ringwal.open(sys.argv[1], segment_size=1 << 20)
wal.append_durable(b"before")
async def awaited():
    await wal.append_durable_async(b"awaited")
asyncio.run(awaited())
child = os.fork()
if child == 0:
    for call in [wal.append, wal.try_append, wal.append_durable]:
        try:
            call(b"from the child")
        except ringwal.Forked:
            continue
        os._exit(1)
    try:
        asyncio.run(awaited())
    except ringwal.Forked:
        pass
    else:
        os._exit(2)
    assert "parent" in repr(wal)
    with ringwal.open(sys.argv[1] + "-child", segment_size=1 << 20) as own:
        own.append_durable(b"its own")
    # The end of a block of the parent leaves the log to the parent.
    with wal:
        pass
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child failed"
wal.append_durable(b"after")
"""
    ended = run(script, directory)
    assert (ended.returncode, ended.stderr) == (0, "")
    with ringwal.open(directory) as wal:
        assert wal.recovery().clean
        assert payloads(wal) == [b"before", b"awaited", b"after"]


def test_options_have_the_names_of_the_builder(directory):
    with ringwal.open(
        directory,
        prefix="jobs",
        segment_size=1 << 20,
        ring_capacity=1 << 18,
        max_record_size=1000,
        application_version=3,
        consumer_limit=1 << 20,
        depth=2,
        durability=timedelta(milliseconds=5),
        commit_delay=0,
        idle_seal=float("inf"),
        max_segments=4,
        max_total_bytes=1 << 23,
        max_age=timedelta(days=1),
        file_mode=0o640,
        must_exist=False,
        create_new=True,
        expect_log_id=None,
        backend="std",
        commit_method="auto",
        stall_threshold=2.5,
        on_stall=None,
        on_sealed=None,
        lock_wait=0.1,
    ) as wal:
        assert wal.backend().kind == "std"
        assert (wal.prefix, wal.dir) == ("jobs", directory)
        log_id = wal.log_id()
    assert (directory / "jobs.lock").exists()
    with pytest.raises(ringwal.ApplicationVersion) as other:
        ringwal.open(directory, prefix="jobs", application_version=4)
    assert (other.value.found, other.value.expected) == (3, 4)
    with ringwal.open(directory, prefix="jobs", expect_log_id=log_id):
        pass
    with pytest.raises(ringwal.OtherLog):
        ringwal.open(directory, prefix="jobs", expect_log_id=bytes(16))
    with pytest.raises(ringwal.LogExists):
        ringwal.open(directory, prefix="jobs", create_new=True, must_exist=False)
    ringwal.remove(directory, "jobs")
    with pytest.raises(ringwal.NoLog):
        ringwal.open(directory, prefix="jobs", must_exist=True, create_new=False)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"segment_sise": 1}, TypeError, "segment_sise"),
        ({"segment_sise": None}, TypeError, "segment_sise"),
        ({"segment_size": "1"}, TypeError, "segment_size"),
        ({"segment_size": -1}, OverflowError, "segment_size"),
        ({"segment_size": 5}, ringwal.OptionsError, "segment_size"),
        ({"durability": "sometimes"}, ValueError, "every_group"),
        ({"durability": b"manual"}, TypeError, "every_group"),
        ({"backend": "tape"}, ValueError, "io_uring"),
        ({"commit_method": "pray"}, ValueError, "dsync"),
        ({"commit_delay": -1}, ValueError, "commit_delay"),
        ({"commit_delay": float("nan")}, ValueError, "commit_delay"),
        ({"max_age": timedelta(days=-1)}, ValueError, "max_age"),
        ({"max_age": "1s"}, TypeError, "max_age"),
        ({"expect_log_id": b"short"}, ValueError, "expect_log_id"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_created(directory, options, error, says):
    with pytest.raises(error, match=says):
        ringwal.open(directory, **options)
    assert not directory.exists()


def test_second_writer_is_refused_with_the_holder(directory, wal):
    with pytest.raises(ringwal.Locked) as locked:
        ringwal.open(directory, lock_wait=0)
    assert locked.value.pid == os.getpid()
    assert str(directory) in str(locked.value.path)


def test_hook_gets_sealed_segments_and_its_exceptions_are_failures(directory, tmp_path):
    sealed, refused = [], []
    got = threading.Event()

    def archive(segment):
        if not refused:
            refused.append(segment)
            raise OSError("the archive is away")
        sealed.append(segment)
        got.set()

    with ringwal.open(directory, on_sealed=archive, segment_size=64 << 10) as wal:
        for _ in range(20):
            wal.append_durable(b"x" * 5000)
        assert got.wait(30)
        assert wal.stats().sealed_failures >= 1
    assert sealed[0] == refused[0]
    assert sealed[0].path.parent == directory
    assert sealed[0].end > sealed[0].base


def test_stats_histograms_and_reports_have_their_values(wal):
    wal.append_durable(b"x" * 100)
    stats = wal.stats()
    assert (stats.records, stats.durable_end) == (1, wal.durable_end())
    assert "records=1" in repr(stats)
    assert stats.oldest_written_at > 1.6e9
    commits = wal.histograms()["commit_time"]
    assert commits.count() >= 1 and commits.quantile(0.5) > 0 and commits.mean() > 0
    assert wal.recovery().case == "new"
    assert wal.backend().kind in ("io_uring", "std")
    assert wal.health() is None


def test_cells_hold_values(directory):
    with ringwal.open(directory, **SMALL) as wal:
        assert wal.load_cell("vote") is None
        wal.store_cell("vote", bytearray(b"7"))
        wal.store_cell("term", b"9")
        wal.remove_cell("term")
    with ringwal.open(directory) as wal:
        assert (wal.load_cell("vote"), wal.cells()) == (b"7", ["vote"])
        with pytest.raises(ringwal.CellName):
            wal.store_cell("no name", b"")


def test_truncation_removes_records(wal):
    lsns = [wal.append(bytes([i])) for i in range(4)]
    wal.sync()
    wal.truncate_from(lsns[2])
    assert payloads(wal) == [b"\0", b"\1"]
    with pytest.raises(ringwal.Truncated) as cut:
        wal.wait_durable(lsns[3])
    assert cut.value.from_lsn == lsns[2]
    assert wal.truncate_before(wal.durable_end()) >= 0
