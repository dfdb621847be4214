"""The examples of the README run, in order, and print what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import ringwal

README = Path(__file__).parent.parent / "README.md"


def test_examples_print_what_the_readme_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|output)\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 12
    names, printed = {"ringwal": ringwal}, ""
    for kind, text in blocks:
        if kind == "output":
            assert printed == text
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(text, str(README), "exec"), names)
        printed = output.getvalue()


def test_example_of_the_package_prints_what_it_says(tmp_path):
    import doctest

    # As the example does: the log is closed, and its object still there.
    log = tmp_path / "log"
    with ringwal.open(log) as wal:
        wal.read(wal.append_durable(b"x"))
    for file in log.iterdir():
        file.unlink()
    try:
        log.rmdir()
    except OSError:
        pytest.skip("what is open keeps its name after its removal, as in Wine")
    assert doctest.testmod(ringwal).attempted >= 2
    assert doctest.testmod(ringwal).failed == 0
