"""The asynchronous generators of followers and consumers."""

from __future__ import annotations

from typing import Any, AsyncIterator

from ._errors import Closed


async def follow_runs(follower: Any) -> AsyncIterator[list[Any]]:
    """Runs of records, as they become durable. Ends when the log is closed."""
    while True:
        run, more = follower._poll_run()
        if run is not None:
            yield run
        elif more is None:
            return
        else:
            try:
                await more
            except Closed:
                # What became durable last is delivered first.
                pass


async def follow_records(follower: Any) -> AsyncIterator[Any]:
    """Records, as they become durable. Ends when the log is closed."""
    while True:
        record, more = follower._poll_record()
        if record is not None:
            yield record
        elif more is None:
            return
        else:
            try:
                await more
            except Closed:
                # What became durable last is delivered first.
                pass
