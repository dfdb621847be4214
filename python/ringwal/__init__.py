"""Write-ahead log for servers: group commit, crash-safe recovery, asyncio.

>>> import ringwal, tempfile
>>> with tempfile.TemporaryDirectory() as directory, ringwal.open(directory) as wal:
...     lsn = wal.append_durable(b"survives power loss")
...     wal.read(lsn).payload
b'survives power loss'
"""

from ._errors import (
    ApplicationVersion,
    BackendUnavailable,
    CellName,
    CellsDamaged,
    CellsFailed,
    CellsFull,
    CellTooLarge,
    Closed,
    Consumed,
    ConsumerBackwards,
    ConsumerDamaged,
    ConsumerInUse,
    ConsumerName,
    ConsumerNameTooLong,
    Corruption,
    EmptyBatch,
    Error,
    ForeignSegment,
    Forked,
    InsideBatch,
    IoError,
    LeaseExpired,
    Locked,
    LogExists,
    NameTaken,
    NoConsumer,
    NoLog,
    NoOrdinal,
    NoRecord,
    NoSpace,
    NotAppended,
    NotDurable,
    NoTagFloor,
    Obstructed,
    OptionsError,
    OtherLog,
    Poisoned,
    Pruned,
    RecordTooLarge,
    Reentrant,
    RingFull,
    TagFloorsDamaged,
    TooManyTagFloors,
    Truncated,
    Unsupported,
    WouldDeadlock,
)
from ._reports import Backend, ConsumerInfo, Recovery, SealedSegment, Stall, Stats
from ._ringwal import (
    Consumer,
    Follower,
    Histogram,
    LogFuture,
    ReadOnlyWal,
    Reader,
    Record,
    Runs,
    Tagged,
    Wal,
    __version__,
    open,
    open_read_only,
    remove,
)

__all__ = [name for name in dir() if not name.startswith("_")]
