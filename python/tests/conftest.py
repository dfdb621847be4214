"""What the tests share."""

from __future__ import annotations

import pytest

import ringwal

#: A small log: it is created in a moment. It writes nothing of its own when it is idle, so that the
#: durable end moves for records only.
SMALL = {"segment_size": 1 << 20, "ring_capacity": 256 << 10, "idle_seal": float("inf")}


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def wal(directory):
    with ringwal.open(directory, **SMALL) as wal:
        yield wal
