"""The end of the interpreter, callbacks, and a child of fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc

import pytest

import ringwal


def run(script, directory):
    return subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, timeout=60
    )


def test_append_by_a_destructor_while_the_interpreter_ends_raises_closed(directory):
    script = """
import ringwal, sys
class Holder:
    def __del__(self):
        for call in [self.wal.append, self.wal.append_durable, self.wal.try_append]:
            try:
                call(b"too late")
            except Exception as error:
                print(type(error).__name__)
holder = Holder()
holder.wal, holder.itself = ringwal.open(sys.argv[1]), holder
"""
    ended = run(script, directory)
    assert (ended.returncode, ended.stdout) == (0, "Closed\n" * 3), ended.stderr


# Daemon threads that run Python code in a call when the interpreter ends. Its end takes half a
# second: what such a thread does then would abort the process.
DAEMONS = """
import asyncio, ringwal, sys, threading, time
class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)
sys.slow = Slow()
wal = ringwal.open(sys.argv[1])
begun = threading.Event()
def linger():
    begun.set()
    for _ in range(20):
        time.sleep(0.01)
    yield b"late"
async def task():
    await wal.append_durable_async(b"x")
    list(linger())
def batch():
    wal.append_batch(linger())
threading.Thread(target=lambda: {WORK}, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize("work", ["asyncio.run(task())", "batch()"])
def test_daemon_threads_that_run_python_code_in_a_call_leave_it_before_the_end(directory, work):
    ended = run(DAEMONS.replace("{WORK}", work), directory)
    assert "FATAL" not in ended.stderr and ended.returncode == 0, ended.stderr


def test_refused_payloads_leave_no_memory_behind(wal):
    def refuse():
        for payload in ["text", None, 7]:
            for call in [wal.append, wal.try_append, wal.append_durable, wal.append_async]:
                try:
                    call(payload)
                except (TypeError, RuntimeError):
                    pass

    refuse()
    tracemalloc.start()
    try:
        for _ in range(500):
            refuse()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_released_memory_view_is_named(wal):
    view = memoryview(b"x")
    view.release()
    with pytest.raises(ValueError, match="released"):
        wal.append(view)


def test_close_by_a_callback_of_the_log_closes_nothing(directory):
    raised = []

    def sealed(_segment):
        try:
            wal.close()
        except ringwal.WouldDeadlock:
            raised.append(wal.closed)

    with ringwal.open(directory, on_sealed=sealed, segment_size=64 << 10) as wal:
        while not raised:
            wal.append_durable(b"x" * 3000)
        assert raised[0] is False and wal.closed is False
        wal.append_durable(b"goes on")
    assert wal.closed


def test_callbacks_must_be_callable_and_their_exceptions_are_reported(directory, monkeypatch):
    for name in ["on_sealed", "on_stall"]:
        with pytest.raises(TypeError, match=name):
            ringwal.open(directory, **{name: 5})
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    with ringwal.open(directory, on_sealed=lambda _segment: 1 / 0, segment_size=64 << 10) as wal:
        while not reported:
            wal.append_durable(b"x" * 3000)
    assert reported[0] is ZeroDivisionError


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_gets_no_empty_answers(directory):
    script = """
import os, sys, ringwal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
wal = ringwal.open(sys.argv[1])
wal.append_durable(b"x")
wal.consumer("mailer").close()
wal.hold_tag(5, 0)
child = os.fork()
if child == 0:
    for call in [wal.consumers, wal.tag_floors]:
        try:
            call()
        except ringwal.Forked:
            continue
        os._exit(1)
    os._exit(0)
assert len(wal.consumers()) == 1 and wal.tag_floors() == {5: 0}
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = run(script, directory)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_generic_classes_can_be_annotated(wal):
    assert ringwal.Reader[ringwal.Record].__origin__ is ringwal.Reader
    assert ringwal.Runs[bytes].__origin__ is ringwal.Runs
    assert ringwal.LogFuture[int].__origin__ is ringwal.LogFuture
