"""What a log reports of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Stats:
    """The counters of a log since it was opened. Sizes are in bytes."""

    records: int
    record_bytes: int
    groups: int
    group_bytes: int
    control_groups: int
    dsync_groups: int
    syncs: int
    depth_sum: int
    io_sleeps: int
    rotations: int
    segments_prepared: int
    segments_recycled: int
    segments_removed: int
    segments_hurried: int
    slow_reservations: int
    no_space: int
    obstructions: int
    sealed_failures: int
    stalls: int
    clock_steps: int
    ring_full_waits: int
    ring_bytes: int
    kept_bytes: int
    reader_lag_bytes: int
    tag_lag_bytes: int
    slowest_tag: Optional[int]
    out_of_space: bool
    obstructed: bool
    commit_method: str
    commit_method_reason: str
    durable_end: int
    #: Seconds since 1970. None if there is no record.
    oldest_written_at: Optional[float]
    #: Seconds.
    stalled_for: float


@dataclass(frozen=True)
class Recovery:
    """What opening a log found."""

    #: How the log had ended: new, marked, whole, torn or unwritten.
    case: str
    oldest: int
    durable_end: int
    next_ordinal: int
    segments: int
    clean: bool
    cut: bool
    discarded_bytes: int
    epoch: int
    application_version: int
    temporaries_removed: int


@dataclass(frozen=True)
class Backend:
    """The backend that runs, its commit method, and the reasons for both."""

    kind: str
    reason: str
    commit_method: str
    commit_method_reason: str
    commit_method_detail: str
    depth: int
    block_size: int
    direct_io: bool
    registered_buffers: bool
    ring_bytes: int
    #: Why the log's filesystem loses data with the power, or None.
    volatility: Optional[str]


@dataclass(frozen=True)
class ConsumerInfo:
    """A consumer of a log."""

    name: str
    position: int
    lag_bytes: int
    attached: bool


@dataclass(frozen=True)
class Stall:
    """An operation that takes longer than stall_threshold."""

    kind: str
    #: Seconds.
    lasted: float
    over: bool


@dataclass(frozen=True)
class SealedSegment:
    """A segment that the log has left."""

    path: Path
    base: int
    end: int


for _class in (Stats, Recovery, Backend, ConsumerInfo, Stall, SealedSegment):
    _class.__module__ = "ringwal"
