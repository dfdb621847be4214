#!/usr/bin/env python3
"""Figures of the Python package: medians of interleaved rounds.

    figures.py [--dir DIR] [--rounds N] [--time SECONDS] [--only NAME,NAME] [--cpu]

Run it with the Python that has the release wheel installed. Every round runs each cell once, so that
all cells see the same drift of the machine. With --cpu a second is one of the calling thread's time on
a processor, and the cells in which other threads work are left out: two builds can be compared on a
machine that others use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from typing import Callable

import ringwal

#: What measures the time of a cell whose work is that of the calling thread.
clock: Callable[[], float] = time.perf_counter

PAYLOAD = b"x" * 100
OPTIONS = {"ring_capacity": 64 << 20, "segment_size": 256 << 20, "max_segments": 3}


def plain_fsync(directory: str, seconds: float) -> float:
    """write and fsync of a file, by one thread: what the device does without a log."""
    path = os.path.join(directory, "plain")
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    block = b"x" * 4096
    for _ in range(1024):
        os.write(descriptor, block)
    os.fsync(descriptor)
    os.lseek(descriptor, 0, os.SEEK_SET)
    count, end = 0, time.perf_counter() + seconds
    begin = time.perf_counter()
    while time.perf_counter() < end:
        if count % 1024 == 0:
            os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, block)
        os.fsync(descriptor)
        count += 1
    took = time.perf_counter() - begin
    os.close(descriptor)
    os.unlink(path)
    return count / took


def burst(name: str, argument: object, calls: int) -> Callable[[ringwal.Wal, float], float]:
    """Bursts of 100,000 records by one thread. The ring takes one, and then the disk catches up."""

    def measure(wal: ringwal.Wal, seconds: float) -> float:
        call = getattr(wal, name)
        count, took, end = 0, 0.0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = clock()
            for _ in range(calls):
                call(argument)
            took += clock() - begin
            count += 100_000
            wal.sync()
        return count / took

    return measure


def nothing(seconds: float) -> float:
    """Calls of a function that does nothing with its argument: what the interpreter takes."""
    call, payload, count, end = len, PAYLOAD, 0, time.perf_counter() + seconds
    begin = clock()
    while time.perf_counter() < end:
        for _ in range(100_000):
            call(payload)
        count += 100_000
    return count / (clock() - begin)


def durable(threads: int) -> Callable[[ringwal.Wal, float], float]:
    def measure(wal: ringwal.Wal, seconds: float) -> float:
        counts = [0] * threads
        start = threading.Barrier(threads + 1)
        stop = False

        def work(number: int) -> None:
            call, payload, count = wal.append_durable, PAYLOAD, 0
            start.wait()
            while not stop:
                call(payload)
                count += 1
            counts[number] = count

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        start.wait()
        begin = time.perf_counter()
        time.sleep(seconds)
        stop = True
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - begin)

    return measure


def tasks(number: int) -> Callable[[ringwal.Wal, float], float]:
    def measure(wal: ringwal.Wal, seconds: float) -> float:
        async def work(end: float) -> int:
            call, payload, count, now = wal.append_durable_async, PAYLOAD, 0, time.perf_counter
            while True:
                for _ in range(16):
                    await call(payload)
                count += 16
                if now() > end:
                    return count

        async def main() -> float:
            begin, end = clock(), time.perf_counter() + seconds
            counts = await asyncio.gather(*[work(end) for _ in range(number)])
            return sum(counts) / (clock() - begin)

        return asyncio.run(main())

    return measure


def turns(seconds: float) -> float:
    """1,024 tasks that await asyncio.sleep(0): what a turn of a task takes without a log."""

    async def work(end: float) -> int:
        count, now = 0, time.perf_counter
        while True:
            for _ in range(16):
                await asyncio.sleep(0)
            count += 16
            if now() > end:
                return count

    async def main() -> float:
        begin, end = clock(), time.perf_counter() + seconds
        counts = await asyncio.gather(*[work(end) for _ in range(1024)])
        return sum(counts) / (clock() - begin)

    return asyncio.run(main())


REPLAYED = 1_000_000


def fill(directory: str) -> None:
    with ringwal.open(directory, **OPTIONS) as wal:
        batch = [PAYLOAD] * 100
        for _ in range(REPLAYED // 100):
            wal.append_batch(batch)


def replay_runs(directory: str) -> float:
    """replay in runs, each record unpacked."""
    with ringwal.open(directory) as wal:
        begin, count = clock(), 0
        for run in wal.replay().runs():
            for _lsn, _payload in run:
                pass
            count += len(run)
        took = clock() - begin
        assert count == REPLAYED
        return count / took


def replay_payloads(directory: str) -> float:
    """replay in runs of payloads."""
    with ringwal.open(directory) as wal:
        begin, count = clock(), 0
        for run in wal.replay().payload_runs():
            for _payload in run:
                pass
            count += len(run)
        took = clock() - begin
        assert count == REPLAYED
        return count / took


def replay_records(directory: str) -> float:
    """replay, record by record."""
    with ringwal.open(directory) as wal:
        begin, count = clock(), 0
        for _lsn, _payload in wal.replay():
            count += 1
        return count / (clock() - begin)


def reader_records(directory: str) -> float:
    """A reader's objects, record by record."""
    with ringwal.open(directory) as wal:
        begin, count = clock(), 0
        for _record in wal.reader():
            count += 1
        return count / (clock() - begin)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--dir", help="where the logs are written (default: a temporary directory)")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--time", type=float, default=0.5, help="seconds of a cell in a round")
    options.add_argument("--only", default="", help="cells whose name contains one of these words")
    options.add_argument("--cpu", action="store_true", help="time of the calling thread alone")
    arguments = options.parse_args()
    if arguments.cpu:
        global clock
        clock = time.thread_time
    place = tempfile.mkdtemp(prefix="ringwal-figures-", dir=arguments.dir)
    seconds = arguments.time

    def on_a_log(measure: Callable[[ringwal.Wal, float], float]) -> Callable[[], float]:
        def cell() -> float:
            directory = os.path.join(place, "log")
            with ringwal.open(directory, **OPTIONS) as wal:
                figure = measure(wal, seconds)
            shutil.rmtree(directory)
            return figure

        return cell

    replayed = os.path.join(place, "replayed")
    cells: dict[str, Callable[[], float]] = {
        "a call of len": lambda: nothing(seconds),
        "plain write + fsync": lambda: plain_fsync(place, seconds),
        "append": on_a_log(burst("append", PAYLOAD, 100_000)),
        "append_batch of 100": on_a_log(burst("append_batch", [PAYLOAD] * 100, 1_000)),
        "append_durable, 1 thread": on_a_log(durable(1)),
        "append_durable, 8 threads": on_a_log(durable(8)),
        "append_durable, 64 threads": on_a_log(durable(64)),
        "asyncio, 64 tasks": on_a_log(tasks(64)),
        "asyncio, 1024 tasks": on_a_log(tasks(1024)),
        "asyncio.sleep(0), 1024 tasks": lambda: turns(seconds),
        "replay in runs": lambda: replay_runs(replayed),
        "replay in runs of payloads": lambda: replay_payloads(replayed),
        "replay, record by record": lambda: replay_records(replayed),
        "reader, record by record": lambda: reader_records(replayed),
    }
    if arguments.cpu:
        others = ("plain", "append_durable")
        cells = {name: cell for name, cell in cells.items() if not name.startswith(others)}
    words = [word for word in arguments.only.split(",") if word]
    if words:
        cells = {name: cell for name, cell in cells.items() if any(w in name for w in words)}
    if any("re" in name.split()[0] for name in cells):
        fill(replayed)
    results: dict[str, list[float]] = {name: [] for name in cells}
    try:
        for _ in range(arguments.rounds):
            for name, cell in cells.items():
                results[name].append(cell())
    finally:
        shutil.rmtree(place)
    print(f"Python {sys.version.split()[0]}, {arguments.rounds} rounds, medians of records a second")
    for name, figures in results.items():
        median = statistics.median(figures)
        print(f"{name:28} {median:>12,.0f}   {min(figures):>12,.0f} .. {max(figures):,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
