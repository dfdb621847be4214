"""The exceptions and their numbers."""

from __future__ import annotations

import errno
import os
import pickle
import re
import sys
from pathlib import Path

import pytest

import ringwal

SOURCE = Path(__file__).parent.parent.parent / "src" / "error" / "code.rs"
RENAMED = {"Io": "IoError", "Options": "OptionsError"}


def test_every_number_of_the_library_has_a_class():
    rows = re.findall(r"/// \| (\d+) \| `(\w+)` \|", SOURCE.read_text())
    assert len(rows) >= 45
    for number, name in rows:
        error = getattr(ringwal, RENAMED.get(name, name))
        assert (error.code, error.__module__) == (int(number), "ringwal")
        assert issubclass(error, ringwal.Error) and error.__doc__
    assert ringwal.Error.code == 0


def test_errors_say_what_they_know(wal):
    end = wal.end()
    with pytest.raises(ringwal.NotAppended) as error:
        wal.wait_durable(end + 4096)
    assert (error.value.lsn, error.value.end) == (end + 4096, end)
    assert error.value.os_error is None
    with pytest.raises(ringwal.NoConsumer) as error:
        wal.remove_consumer("nobody")
    assert error.value.name == "nobody"
    assert isinstance(error.value, LookupError)


def test_errors_of_the_system_have_its_number(tmp_path):
    with pytest.raises(ringwal.IoError) as error:
        ringwal.open(tmp_path / ("x" * 300))
    # Windows has numbers of its own, and several for this.
    number = error.value.os_error if sys.platform == "win32" else errno.ENAMETOOLONG
    assert error.value.os_error == number and number > 0
    assert error.value.path.parent == tmp_path and error.value.op
    assert isinstance(error.value, OSError) and error.value.errno == number
    assert "x" * 300 in str(error.value) and "Errno" not in str(error.value)
    assert os.path.dirname(error.value.filename) == str(tmp_path)
    assert error.value.strerror and "os error" not in error.value.strerror


def test_corruption_names_the_place(directory):
    with ringwal.open(directory, segment_size=1 << 20) as wal:
        for _ in range(10):
            wal.append_durable(b"x" * 3000)
    segment = min(directory.glob("wal.0*"))
    with open(segment, "r+b") as file:
        file.seek(4096 * 4 + 500)
        file.write(b"damage")
    with pytest.raises(ringwal.Corruption) as error:
        # Its larger segments replace the prepared one.
        with ringwal.open(directory) as wal:
            list(wal.replay())
    assert error.value.segment == segment.name
    assert error.value.offset >= 4096
    # A reader that comes from the other side delivers what is whole first.
    reader, delivered = ringwal.open_read_only(directory).reader_back(), []
    with pytest.raises(ringwal.Corruption):
        for record in reader:
            delivered.append(record.ordinal)
    assert delivered == list(range(9, delivered[-1] - 1, -1)) and len(delivered) > 1


def test_errors_can_be_pickled_by_their_text():
    error = pickle.loads(pickle.dumps(ringwal.RingFull("full")))
    assert (type(error), str(error), error.code) == (ringwal.RingFull, "full", 1)


def test_wrong_arguments_say_what_is_right(wal):
    for records in [[b"x"], (7, b"x"), [(1, b"x", 2)]]:
        with pytest.raises(TypeError, match="tuple of a tag and its bytes"):
            wal.append_batch_tagged(records)
    with pytest.raises(TypeError, match="datetime"):
        wal.reader_from_time("yesterday")
    for timeout, error in [(-1, ValueError), ("soon", TypeError)]:
        with pytest.raises(error, match="duration"):
            wal.follow().next(timeout=timeout)
    with pytest.raises(ringwal.Locked, match="use the Wal that has the log open"):
        ringwal.open(wal.dir, lock_wait=0)


def test_logs_and_readers_cannot_be_pickled(wal):
    for unpicklable in [wal, wal.reader(), wal.follow(), wal.consumer("mailer"), wal.tagged(1)]:
        with pytest.raises(TypeError, match=type(unpicklable).__name__):
            pickle.dumps(unpicklable)


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert ringwal.__version__ == version("ringwal")
