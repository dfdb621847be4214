"""A program that the type checker must accept: see python/check."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Optional

import ringwal


def use(directory: str) -> int:
    with ringwal.open(directory, durability=timedelta(milliseconds=2), max_segments=8) as wal:
        lsn: int = wal.append(bytearray(b"x"))
        wal.append_batch([b"x", memoryview(b"y")])
        for position, payload in wal.replay():
            lsn = max(lsn, position + len(payload))
        for run in wal.reader(only_tags={1, 2}).runs():
            tag: Optional[int] = run[0].tag
            assert tag is None
        payloads: list[bytes] = next(wal.replay().payload_runs())
        assert payloads
        with wal.consumer("mailer") as mailer:
            for record in mailer:
                mailer.commit(record.lsn)
        try:
            wal.wait_durable(lsn)
        except ringwal.NotAppended as error:
            return error.end
        except ringwal.Error as error:
            return error.code
        return wal.stats().records


async def use_async(wal: ringwal.Wal) -> list[int]:
    lsns: list[int] = await asyncio.gather(*[_append(wal) for _ in range(3)])
    async for record in wal.follow():
        if record.lsn == lsns[-1]:
            break
    return lsns


async def _append(wal: ringwal.Wal) -> int:
    lsn = await wal.append_durable_async(b"x")
    await wal.wait_durable_async(lsn)
    return lsn
