"""The asynchronous generator of followers and consumers."""

from __future__ import annotations

from typing import Any, AsyncIterator, Callable, Optional

from ._errors import Closed


async def follow(poll: Callable[[], tuple[Optional[Any], Optional[Any]]]) -> AsyncIterator[Any]:
    """Records, or runs of them, as they become durable. Ends when the log is closed."""
    while True:
        taken, more = poll()
        if taken is not None:
            yield taken
        elif more is None:
            return
        else:
            try:
                await more
            except Closed:
                # What became durable last is delivered first.
                pass
