"""Readers, followers, consumers, tags, and reading from outside."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time

import pytest

import ringwal
from conftest import SMALL


def test_reader_delivers_records_with_all_that_they_know(wal):
    lsns = [wal.append(b"a"), wal.append_tagged(7, b"b")]
    wal.sync()
    first, second = wal.reader()
    assert [first.lsn, second.lsn] == lsns
    assert (first.payload, bytes(second), len(second)) == (b"a", b"b", 1)
    assert (first.tag, second.tag) == (None, 7)
    assert (first.ordinal, second.ordinal) == (0, 1)
    assert abs(first.written_at - time.time()) < 3600
    assert first.written_at_ns // 10**9 == int(first.written_at)
    assert first == wal.read(lsns[0]) and first != second and hash(first) == hash(wal.read(lsns[0]))
    assert wal.read_ordinal(1) == second
    assert repr(second) == f"<ringwal.Record lsn={second.lsn} tag=7 1 bytes b'b'>"
    assert repr(wal.reader()) == "<ringwal.Reader forwards>"


def test_records_go_to_other_processes_by_pickle(wal):
    wal.append_tagged(7, b"tagged")
    wal.append(b"plain")
    wal.sync()
    for record in wal.reader():
        for other in [pickle.loads(pickle.dumps(record)), copy.deepcopy(record)]:
            assert other == record and repr(other) == repr(record)
            assert (other.tag, other.ordinal) == (record.tag, record.ordinal)
            assert other.written_at_ns == record.written_at_ns


def test_closed_reader_delivers_nothing_and_releases_the_log(directory):
    with ringwal.open(directory, segment_size=64 << 10, max_segments=3) as wal:
        for _ in range(20):
            wal.append_durable(b"x" * 5000)
        with wal.reader() as reader, wal.follow() as follower:
            assert next(reader).lsn == follower.next().lsn
            for _ in range(60):
                wal.append_durable(b"x" * 5000)
            held = wal.oldest_lsn()
        assert next(reader, None) is None and reader.next_run() is None
        assert follower.next() is None and follower.has_ended() and follower.lag() == 0
        assert "closed" in repr(follower)
        for _ in range(60):
            wal.append_durable(b"x" * 5000)
        wal.sync()
        assert wal.oldest_lsn() > held


def test_runs_are_lists_of_the_same_records(wal):
    expected = []
    for i in range(300):
        payload = b"%d" % i * (i % 50)
        expected.append((wal.append(payload), payload))
        if i % 7 == 0:
            wal.sync()
    runs = list(wal.replay().runs())
    assert [record for run in runs for record in run] == expected
    assert len(runs) < len(expected)
    assert list(wal.replay()) == expected
    records = [record for run in wal.reader().runs() for record in run]
    assert [(record.lsn, record.payload) for record in records] == expected
    # A run that was begun ends with the rest.
    reader = wal.replay()
    begun = next(reader)
    rest = [record for run in reader.runs() for record in run]
    assert [begun, *rest] == expected
    assert reader.next_run() is None and next(reader, None) is None


def test_runs_of_payloads_are_those_of_the_same_records(wal, directory):
    expected = [b"%d" % i * (i % 50) for i in range(2000)]
    for payload in expected:
        wal.append(payload)
    wal.sync()

    def payloads(reader):
        return [payload for run in reader.payload_runs() for payload in run]

    assert payloads(wal.replay()) == payloads(wal.reader()) == expected
    assert payloads(wal.reader_back()) == expected[::-1]
    assert payloads(ringwal.open_read_only(directory).reader()) == expected
    # A run that was begun ends with the rest, in each form.
    for reader, payload_of in [
        (wal.replay(), lambda pair: pair[1]),
        (wal.reader(), lambda record: record.payload),
    ]:
        begun = [payload_of(next(reader)) for _ in range(700)]
        assert begun + payloads(reader) == expected
        assert next(reader.payload_runs(), None) is None and next(reader, None) is None


def test_reader_starts_at_its_position_and_goes_back(wal):
    lsns = [wal.append(b"%d" % i) for i in range(600)]
    wal.sync()
    assert [record.lsn for record in wal.reader(lsns[590])] == lsns[590:]
    assert [record.lsn for record in wal.reader_back()] == lsns[::-1]
    assert [record.lsn for record in wal.reader_back(lsns[2])] == lsns[1::-1]
    assert wal.reader(lsns[0]).next_run()[0].next_lsn > lsns[0]
    assert len(list(wal.reader_from_time(0))) == 600


def test_reader_beyond_the_end_fails(wal):
    with pytest.raises(ringwal.NotAppended):
        next(wal.reader(wal.end() + 4096))


def test_tags_filter_every_reader(wal):
    orders = wal.tagged(1)
    orders.append(b"o1")
    wal.append_tagged(2, b"u1")
    orders.append_durable(b"o2")
    orders.try_append(bytearray(b"o3"))
    wal.append_batch_tagged([(1, b"o4"), (2, bytearray(b"u2"))])
    orders.append_batch([b"o5"])
    assert len(orders.append_batch_lsns([b"o6", b"o7"])) == 2
    wal.append(b"untagged")
    wal.sync()
    expected = [b"o1", b"o2", b"o3", b"o4", b"o5", b"o6", b"o7"]

    def got(records):
        return [record.payload for record in records]

    assert got(wal.reader(only_tag=1)) == expected
    assert got(orders.reader()) == expected
    assert got(wal.reader_back(only_tag=1)) == expected[::-1]
    assert got(wal.reader(only_tags=[2])) == [b"u1", b"u2"]
    assert len(got(wal.reader(only_tags={1, 2}))) == 9
    assert got(wal.reader(only_tags=[])) == []
    follower = orders.follow()
    assert got(iter(lambda: follower.next(timeout=0), None)) == expected
    assert (orders.tag, "tag=1" in repr(orders)) == (1, True)


def test_tag_floors_hold_the_log(wal):
    lsn = wal.append_tagged(4, b"held")
    wal.sync()
    assert wal.hold_tag(4, lsn) == lsn
    assert wal.tag_floors() == {4: lsn}
    wal.release_tag(4, wal.durable_end())
    wal.remove_tag_floor(4)
    assert wal.tag_floors() == {}
    with pytest.raises(ringwal.NoTagFloor):
        wal.remove_tag_floor(4)


def test_follower_waits_and_ends_with_the_log(directory):
    with ringwal.open(directory, **SMALL) as wal:
        follower = wal.follow()
        assert follower.next(timeout=0) is None
        assert follower.next_run(timeout=0.01) is None
        assert not follower.has_ended()
        got = []
        thread = threading.Thread(target=lambda: got.extend(r.payload for r in follower))
        thread.start()
        for i in range(100):
            wal.append_durable(b"%d" % i)
    thread.join()
    assert got == [b"%d" % i for i in range(100)]
    assert follower.has_ended() and follower.lag() == 0
    assert follower.next() is None


def test_follower_has_ended_after_the_last_record_of_its_run(directory):
    with ringwal.open(directory, **SMALL) as wal:
        follower, consumer = wal.follow(), wal.consumer("mailer")
        wal.append_batch([b"a", b"b"])
    for reads in [follower, consumer]:
        assert reads.next().payload == b"a" and not reads.has_ended()
        assert reads.next().payload == b"b"
        assert reads.next() is None and reads.has_ended()


def test_object_in_use_by_another_thread_refuses(wal):
    follower = wal.follow()

    def waits():
        # Until then the calls below may use it.
        while True:
            try:
                return follower.next()
            except RuntimeError:
                pass

    thread = threading.Thread(target=waits)
    thread.start()
    while True:
        try:
            follower.next(timeout=0)
        except RuntimeError as error:
            assert "follower" in str(error)
            break
    assert repr(follower).startswith("<ringwal.Follower")
    wal.append_durable(b"ends the wait")
    thread.join()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_signal_ends_a_wait(wal):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for waits in [wal.follow(), wal.consumer("waits")]:
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                next(waits)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("make", ["follow", "consumer", "outside"])
def test_close_ends_the_wait_of_another_thread(directory, wal, make):
    if make == "outside":
        waits = ringwal.open_read_only(directory).follow()
    else:
        waits = wal.follow() if make == "follow" else wal.consumer("mailer")
    wal.append_durable(b"first")
    got, first = [], threading.Event()

    def work():
        for record in waits:
            got.append(record.payload)
            first.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert first.wait(30)
    waits.close()
    thread.join(30)
    assert not thread.is_alive() and got == [b"first"]
    if make == "consumer":
        with pytest.raises(ringwal.NoConsumer, match="closed"):
            waits.next()
        wal.remove_consumer("mailer")
    else:
        assert waits.next() is None and waits.has_ended()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_handler_of_a_signal_closes_what_waits(wal):
    follower = wal.follow()
    before = signal.signal(signal.SIGALRM, lambda *_: follower.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert list(follower) == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_consumer_goes_on_after_its_commit(directory):
    with ringwal.open(directory, **SMALL) as wal:
        lsns = [wal.append(bytes([i])) for i in range(10)]
        wal.sync()
        with wal.consumer("mailer") as mailer:
            for record in mailer:
                if record.payload == b"\3":
                    mailer.commit(record.lsn)
                    break
            assert mailer.next(timeout=1).payload == b"\4"
            with pytest.raises(ringwal.ConsumerInUse):
                wal.consumer("mailer")
        info, = wal.consumers()
        assert (info.name, info.attached) == ("mailer", False)
        with pytest.raises(ringwal.NoConsumer):
            mailer.next()
    with ringwal.open(directory, **SMALL) as wal, wal.consumer("mailer") as mailer:
        assert mailer.name == "mailer"
        assert mailer.next(timeout=1).payload == b"\4"
        mailer.seek(lsns[1])
        assert mailer.position() <= lsns[1]
        assert mailer.next(timeout=1).payload == b"\1"
        mailer.seek_ordinal(8)
        # A run ends with its group, and how many records that has depends on the time.
        first, = mailer.next_run(timeout=1)[:1]
        assert first.payload == b"\x08"
        mailer.seek(lsns[8])
        assert not mailer.is_caught_up() and mailer.lag() > 0
        mailer.commit_before(wal.durable_end())
        assert mailer.is_caught_up() and mailer.lag() == 0
        with pytest.raises(ringwal.ConsumerBackwards):
            mailer.commit(lsns[0])
        mailer.seek_time(0)
        assert mailer.next(timeout=1).payload == b"\0"
        mailer.close()
        wal.remove_consumer("mailer")
        assert wal.consumers() == []


def test_consumer_delivers_what_no_call_has_committed(wal):
    lsns = wal.append_batch_lsns([b"a", b"b", b"c", b"d"])
    wal.sync()
    with wal.consumer("mailer") as mailer:
        assert mailer.next(timeout=1).payload == b"a"
        for seek in [lambda: mailer.seek(wal.end() + 4096), lambda: mailer.seek_ordinal(99)]:
            with pytest.raises(ringwal.Error):
                seek()
        assert mailer.next(timeout=1).payload == b"b"
        mailer.commit(lsns[2])
        assert [record.payload for record in mailer.next_run(timeout=1)] == [b"d"]


def test_consumer_with_a_filter_commits_what_it_skips(wal):
    with wal.consumer("orders", only_tag=1) as orders:
        wal.append_tagged(2, b"no order")
        lsn = wal.append_tagged(1, b"order")
        wal.append_tagged(2, b"no order")
        wal.sync()
        assert orders.next(timeout=1).payload == b"order"
        orders.commit(lsn)
        assert orders.next(timeout=0) is None
        assert orders.commit_skipped() == wal.durable_end()


def quoted(path):
    return '"' + str(path).replace("\\", "\\\\") + '"'


def test_reading_from_outside_sees_what_is_durable(directory, wal):
    lsn = wal.append_durable(b"seen")
    wal.store_cell("vote", b"1")
    log = ringwal.open_read_only(directory)
    assert list(log.replay()) == [(lsn, b"seen")]
    assert [record.payload for record in log.reader()] == [b"seen"]
    assert [record.payload for record in log.reader_back()] == [b"seen"]
    assert (log.read(lsn).payload, log.read_ordinal(0).lsn) == (b"seen", lsn)
    assert (log.load_cell("vote"), log.cells()) == (b"1", ["vote"])
    assert log.durable_end() > log.oldest_lsn() >= 0
    assert log.application_version() == 0
    follower = log.follow()
    assert follower.next(timeout=5).payload == b"seen"
    assert follower.next(timeout=0) is None
    wal.append_durable(b"later")
    assert [r.payload for r in follower.next_run(timeout=5)] == [b"later"]
    with pytest.raises(TypeError):
        follower.__aiter__()
    assert quoted(directory) in repr(log)
    with pytest.raises(ringwal.IoError):
        ringwal.open_read_only(directory, prefix="other")
    assert (log.dir, log.prefix, log.closed) == (directory, "wal", False)
    with ringwal.open_read_only(directory) as closes:
        reader = closes.reader()
    assert closes.closed and "closed" in repr(closes)
    assert [record.payload for record in reader] == [b"seen", b"later"]
    for call in [closes.durable_end, closes.reader, closes.replay, closes.application_version]:
        with pytest.raises(ringwal.Closed):
            call()
    # After an error it has ended: the next call waits for nothing.
    wal.truncate_from(lsn)
    with pytest.raises(ringwal.Truncated):
        follower.next(timeout=5)
    assert follower.next() is None and follower.has_ended()


def test_representations_name_the_log(directory, wal):
    assert repr(wal).startswith(f"<ringwal.Wal {quoted(directory)} open durable_end=")
    assert os.fspath(wal.dir) == str(directory)
    with wal.consumer("mailer") as mailer:
        assert repr(mailer).startswith('<ringwal.Consumer "mailer" position=')
    assert repr(wal.histograms()["sync_time"]).startswith("<ringwal.Histogram count=")
