"""The exceptions: one class for each kind of error of the log."""

from __future__ import annotations

from typing import Any, Optional


class Error(Exception):
    """An error of the log. Each kind has a class of its own.

    An instance has what the error knows besides its text, for example ``Locked.pid`` or
    ``Corruption.segment``.
    """

    #: The number of the kind. It keeps its meaning in every later version.
    code: int = 0
    #: The error number of the system, if a system call is the cause.
    os_error: Optional[int] = None


_CLASSES: dict[int, type[Error]] = {}


def class_of(code: int) -> type[Error]:
    """The class of a kind of error."""
    return _CLASSES.get(code, Error)


def _kind(code: int, name: str, doc: str, *mixed: type) -> Any:
    attributes = {"code": code, "__doc__": doc, "__module__": "ringwal"}
    _CLASSES[code] = type(name, (Error, *mixed), attributes)
    return _CLASSES[code]


Error.__module__ = "ringwal"

RingFull = _kind(1, "RingFull", "The ring has no room, and the call must not wait. Retry later.")
RecordTooLarge = _kind(
    2,
    "RecordTooLarge",
    "A record or batch is larger than max_record_size. Has len and max.",
    ValueError,
)
EmptyBatch = _kind(3, "EmptyBatch", "A batch must hold at least one record.", ValueError)
Poisoned = _kind(4, "Poisoned", "A write or a sync has failed. Close the log and open it again.")
Closed = _kind(5, "Closed", "The log is closed.")
NoSpace = _kind(6, "NoSpace", "There is no room for the next segment. Nothing is lost.")
Obstructed = _kind(7, "Obstructed", "A segment cannot be prepared or removed now. Has path.")
Locked = _kind(8, "Locked", "Another writer has the log open. Has path and pid.")
Corruption = _kind(
    9, "Corruption", "Durable data was damaged. Has segment, offset, lsn and reason."
)
Pruned = _kind(10, "Pruned", "Retention has removed the position. Has oldest.")
NotAppended = _kind(11, "NotAppended", "The position was never assigned. Has lsn and end.")
NotDurable = _kind(12, "NotDurable", "The position is not durable yet. Has lsn and durable_end.")
NoRecord = _kind(13, "NoRecord", "No record starts at the position. Has lsn.")
NoOrdinal = _kind(14, "NoOrdinal", "No durable record has the ordinal. Has ordinal.")
Truncated = _kind(15, "Truncated", "truncate_from cut the position. Has from_lsn and to_lsn.")
InsideBatch = _kind(16, "InsideBatch", "The position is inside a batch. Has lsn and first.")
ConsumerName = _kind(17, "ConsumerName", "The name is no consumer's name.", ValueError)
ConsumerNameTooLong = _kind(
    18, "ConsumerNameTooLong", "The consumer's name is too long.", ValueError
)
NameTaken = _kind(19, "NameTaken", "A file has the name that the log would use. Has path.")
ConsumerInUse = _kind(20, "ConsumerInUse", "The consumer is attached already. Has name.")
NoConsumer = _kind(21, "NoConsumer", "There is no such consumer. Has name.", LookupError)
ConsumerBackwards = _kind(
    22, "ConsumerBackwards", "The record is committed already. Has lsn and position."
)
ConsumerDamaged = _kind(23, "ConsumerDamaged", "The consumer's stored position is damaged.")
Consumed = _kind(24, "Consumed", "A consumer has committed what was to be cut.")
Unsupported = _kind(25, "Unsupported", "A newer version has written the log.")
ForeignSegment = _kind(26, "ForeignSegment", "A segment file belongs to another log.")
ApplicationVersion = _kind(
    27, "ApplicationVersion", "The log has another application_version. Has found and expected."
)
NoLog = _kind(28, "NoLog", "There is no log. Has path and prefix.", LookupError)
LogExists = _kind(29, "LogExists", "There is a log already. Has path and prefix.")
OtherLog = _kind(30, "OtherLog", "It is another log than the expected one.")
OptionsError = _kind(31, "OptionsError", "Options that cannot work; each is named.", ValueError)
BackendUnavailable = _kind(32, "BackendUnavailable", "The requested backend cannot run.")
IoError = _kind(
    33,
    "IoError",
    "A system call failed. Has op and path, and what an OSError has.",
    OSError,
)
# OSError would put a text together from its fields.
IoError.__str__ = BaseException.__str__
WouldDeadlock = _kind(34, "WouldDeadlock", "A thread of the log must not wait for the log.")
Reentrant = _kind(35, "Reentrant", "The call is not allowed inside another one.")
Forked = _kind(36, "Forked", "The log belongs to the parent process. Open it in the child.")
CellName = _kind(37, "CellName", "The name is no cell's name.", ValueError)
CellTooLarge = _kind(38, "CellTooLarge", "The value does not fit a cell.", ValueError)
CellsFull = _kind(39, "CellsFull", "All cells together are too large. Has len and max.", ValueError)
CellsDamaged = _kind(40, "CellsDamaged", "The file of the cells is damaged.")
CellsFailed = _kind(41, "CellsFailed", "A write of the cells has failed.")
LeaseExpired = _kind(42, "LeaseExpired", "The lease of a job has ended.")
NoTagFloor = _kind(43, "NoTagFloor", "The tag has no floor.", LookupError)
TooManyTagFloors = _kind(44, "TooManyTagFloors", "Too many tags have a floor.", ValueError)
TagFloorsDamaged = _kind(45, "TagFloorsDamaged", "The file of the tags' floors is damaged.")
