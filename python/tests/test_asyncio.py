"""Awaiting."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
import weakref

import pytest

import ringwal
from conftest import SMALL


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """As the loop of Windows: it watches no descriptor for others."""

    def add_reader(self, *_):
        raise NotImplementedError


@pytest.fixture(params=["readers", "thread"])
def run(request):
    def run(main):
        if request.param == "readers":
            return asyncio.run(asyncio.wait_for(main, 60))
        loop = LoopWithoutReaders()
        try:
            return loop.run_until_complete(asyncio.wait_for(main, 60))
        finally:
            loop.close()

    return run


def test_awaited_records_are_durable(wal, run):
    async def main():
        lsn = await wal.append_durable_async(b"a")
        assert wal.durable_end() > lsn
        placed = await wal.append_async(b"b")
        assert placed > lsn
        assert await wal.wait_durable_async(placed) is None
        assert wal.durable_end() > placed
        # A second time: it is durable already.
        assert await wal.wait_durable_async(placed) is None
        tagged = await wal.tagged(5).append_durable_async(b"c")
        assert wal.read(tagged).tag == 5
        assert await wal.tagged(5).append_async(b"d") > tagged

    run(main())
    assert [payload for _, payload in wal.replay()] == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("durability", ["every_group", "manual", 0.005])
def test_every_durability_resolves_the_tasks(directory, run, durability):
    with ringwal.open(directory, durability=durability, **SMALL) as wal:

        async def task(number):
            for i in range(20):
                lsn = await wal.append_durable_async(b"%d %d" % (number, i))
                assert wal.durable_end() > lsn
                await wal.wait_durable_async(wal.append(b"-"))

        async def main():
            await asyncio.gather(*[task(number) for number in range(50)])

        run(main())
        assert sum(payload != b"-" for _, payload in wal.replay()) == 1000


def test_tasks_share_one_listener(wal):
    """Each waiter of its own would take a descriptor pair or a callback of the log."""

    async def main():
        await wal.append_durable_async(b"first")
        before = len(os.listdir("/proc/self/fd"))
        futures = [wal.append_durable_async(b"x") for _ in range(500)]
        # The log may open a segment meanwhile.
        assert len(os.listdir("/proc/self/fd")) < before + 100
        lsns = await asyncio.gather(*futures)
        assert lsns == sorted(lsns)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc/self/fd")
    asyncio.run(main())


def test_futures_resolve_in_the_order_of_their_lsns(wal, run):
    order = []

    async def main():
        lsns = [wal.append(bytes([i])) for i in range(20)]
        futures = {lsn: wal.wait_durable_async(lsn) for lsn in reversed(lsns)}
        # Those that are durable already have their callbacks scheduled at once.
        waiting = [lsn for lsn in lsns if not futures[lsn].done()]
        for lsn in reversed(waiting):
            futures[lsn].add_done_callback(lambda _, lsn=lsn: order.append(lsn))
        await asyncio.gather(*futures.values())
        assert order == waiting

    run(main())


def test_full_ring_makes_the_tasks_wait_in_order(directory, run):
    with ringwal.open(directory, ring_capacity=64 << 10, segment_size=1 << 20) as wal:

        async def main():
            # More than the ring holds, without a pause.
            kinds = [wal.append_durable_async, wal.append_async, wal.tagged(1).append_durable_async]
            futures = [kinds[i % 3](b"%06d" % i * 1000) for i in range(200)]
            assert any(not future.done() for future in futures)
            lsns = await asyncio.gather(*futures)
            assert lsns == sorted(lsns)

        run(main())
        assert [payload[:6] for _, payload in wal.replay()] == [b"%06d" % i for i in range(200)]


def test_cancelled_append_that_waits_for_room_appends_nothing(directory, run):
    with ringwal.open(directory, ring_capacity=64 << 10, segment_size=1 << 20) as wal:

        async def main():
            futures = [wal.append_durable_async(b"%06d" % i * 1000) for i in range(100)]
            waiting = [future for future in futures if "pending" in repr(future)]
            assert futures[-1] in waiting and futures[-1].cancel("enough")
            assert not futures[-1].cancel()
            results = await asyncio.gather(*futures, return_exceptions=True)
            assert isinstance(results[-1], asyncio.CancelledError)
            assert results[-1].args == ("enough",)
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await asyncio.gather(futures[-1])
            assert futures[-1].cancelled() and futures[-1].done()

        run(main())
        assert len(list(wal.replay())) == 99


def test_timeout_and_cancellation_end_the_wait_and_not_the_record(directory, run):
    with ringwal.open(directory, durability="manual", **SMALL) as wal:

        async def main():
            end = wal.end()
            follower = wal.follow(end)
            # Nothing asks for a sync, so that nothing comes.
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(follower.__aiter__().__anext__(), 0.05)
            task = asyncio.ensure_future(wal.append_durable_async(b"kept"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        assert [payload for _, payload in wal.replay()] == [b"kept"]


def test_closing_resolves_what_waits(directory, run):
    wal = ringwal.open(directory, durability="manual", **SMALL)

    async def main():
        futures = [wal.append_durable_async(b"%d" % i) for i in range(10)]
        closing = asyncio.get_running_loop().run_in_executor(None, wal.close)
        assert len(await asyncio.gather(*futures)) == 10
        await closing
        for late in [wal.append_durable_async(b"late"), wal.append_async(b"late")]:
            with pytest.raises(ringwal.Closed):
                await late
        # What is durable stays so.
        assert await wal.wait_durable_async(futures[0].result()) is None
        with pytest.raises(ringwal.Closed):
            await wal.append_durable_async(b"late")

    run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_failure_of_the_log_reaches_every_task(tmp_path):
    """A limit of the file size makes the writes fail, in a process of its own."""
    import subprocess

    script = """
import asyncio, os, resource, signal, sys, ringwal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
wal = ringwal.open(sys.argv[1], segment_size=1 << 20, ring_capacity=1 << 18, backend="std")

async def task(number):
    for i in range(10_000):
        await wal.append_durable_async(b"x" * 100)

async def main():
    await wal.append_durable_async(b"works")
    tasks = [asyncio.ensure_future(task(number)) for number in range(100)]
    await asyncio.sleep(0.05)
    # The written segment is larger: every write of it fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ringwal.Poisoned) for result in results), results[:3]
    assert results[0].os_error, results[0]
    try:
        await wal.append_durable_async(b"late")
    except ringwal.Poisoned:
        print("poisoned")
    assert "failed" in repr(wal)

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "poisoned\n", "")


def test_async_for_follows_until_the_log_is_closed(directory, run):
    wal = ringwal.open(directory, **SMALL)

    async def follow(records, expected):
        got = [record.payload async for record in records]
        assert got == expected

    async def follow_runs(follower, expected):
        got = [record.payload async for run in follower.runs_async() for record in run]
        assert got == expected

    async def main():
        expected = [b"%d" % i for i in range(200)]
        consumer = wal.consumer("mailer")
        tasks = [
            asyncio.ensure_future(follow(wal.follow(), expected)),
            asyncio.ensure_future(follow(consumer, expected)),
            asyncio.ensure_future(follow_runs(wal.follow(), expected)),
            asyncio.ensure_future(follow(wal.tagged(1).follow(), expected[::2])),
        ]
        for i, payload in enumerate(expected):
            await (wal.tagged(1) if i % 2 == 0 else wal).append_durable_async(payload)
        await asyncio.get_running_loop().run_in_executor(None, wal.close)
        await asyncio.gather(*tasks)
        consumer.close()

    run(main())


def test_many_loops_use_one_log_at_once(wal):
    failures = []

    def work():
        async def main():
            for _ in range(30):
                await wal.append_durable_async(b"x")

        try:
            asyncio.run(asyncio.wait_for(main(), 60))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(wal.replay())) == 240


def test_tasks_of_a_loop_use_two_logs_at_once(tmp_path, wal, run):
    """A position of one log is no position of the other."""
    with ringwal.open(tmp_path / "other", durability="manual", **SMALL) as other:
        for _ in range(10):
            wal.append_durable(b"x" * 30_000)

        async def task(number):
            for _ in range(30):
                for log in [wal, other]:
                    lsn = await log.append_durable_async(b"%d" % number)
                    assert log.durable_end() > lsn
                    await log.append_async(b"-")

        async def main():
            await asyncio.gather(*[task(number) for number in range(20)])

        run(main())
        assert [len(list(log.replay())) for log in [wal, other]] == [1210, 1200]


def test_loops_that_are_closed_leave_nothing_behind(wal):
    async def main():
        await wal.append_durable_async(b"x")

    asyncio.run(main())
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc/self/fd")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(main())
    gc.collect()
    # Each loop has a pair of sockets. The log may open a segment meanwhile.
    assert len(os.listdir("/proc/self/fd")) < before + 20


def test_future_is_one_of_asyncio(wal):
    variable = contextvars.ContextVar("variable")

    async def main():
        loop = asyncio.get_running_loop()
        future = wal.append_durable_async(b"x")
        assert asyncio.isfuture(future) and future.get_loop() is loop
        with pytest.raises(asyncio.InvalidStateError):
            future.result()
        with pytest.raises(asyncio.InvalidStateError):
            future.exception()
        called = []
        variable.set("outside")
        context = contextvars.copy_context()
        context.run(variable.set, "inside")

        def callback(done):
            called.append((done.result(), variable.get()))

        def removed(done):
            called.append("removed")

        future.add_done_callback(callback)
        future.add_done_callback(callback, context=context)
        future.add_done_callback(removed)
        assert future.remove_done_callback(removed) == 1
        assert future.remove_done_callback(removed) == 0
        lsn = await asyncio.shield(future)
        future.add_done_callback(callback)
        await asyncio.sleep(0)
        assert called == [(lsn, "outside"), (lsn, "inside"), (lsn, "outside")]
        assert future.exception() is None and future.done() and not future.cancelled()
        assert repr(future) == f"<ringwal.LogFuture finished lsn={lsn}>"
        assert weakref.ref(future)() is future
        done, pending = await asyncio.wait([wal.append_durable_async(b"y")])
        assert len(done) == 1 and not pending

    asyncio.run(main())


def test_callback_that_fails_is_reported_and_stops_nothing(wal):
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        first, second = wal.append_durable_async(b"x"), wal.append_durable_async(b"y")
        first.add_done_callback(lambda _: 1 / 0)
        await asyncio.gather(first, second)

    asyncio.run(main())
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_exit_from_a_task_leaves_the_other_waiters_in_place(wal):
    async def leaves():
        await wal.append_durable_async(b"x")
        raise SystemExit(7)

    async def main():
        others = [asyncio.ensure_future(wal_task()) for _ in range(5)]
        asyncio.ensure_future(leaves())
        await asyncio.gather(*others)

    async def wal_task():
        await wal.append_durable_async(b"y")
        await wal.append_durable_async(b"z")

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_awaitables_need_a_running_loop(wal):
    for call in [lambda: wal.append_durable_async(b"x"), lambda: wal.wait_durable_async(0)]:
        with pytest.raises(RuntimeError, match="event loop"):
            call()
    assert list(wal.replay()) == []


def test_wrong_arguments_raise_at_once(wal):
    async def main():
        with pytest.raises(TypeError, match="bytes-like"):
            wal.append_durable_async("text")
        with pytest.raises(ringwal.RecordTooLarge):
            await wal.append_durable_async(b"x" * (1 << 22))
        with pytest.raises(ringwal.NotAppended):
            await wal.wait_durable_async(1 << 40)

    asyncio.run(main())


def test_cut_record_is_no_success(wal):
    async def main():
        lsn = wal.append(b"cut")
        wal.sync()
        wal.truncate_from(lsn)
        with pytest.raises(ringwal.Truncated):
            await wal.wait_durable_async(lsn)

    asyncio.run(main())
