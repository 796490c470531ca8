"""A view that is shown again and again fits on its terminal."""

from __future__ import annotations

import argparse
import asyncio
import os

import pytest

from distlog.cli import watching
from distlog.cli.watching import fitting
from tests.client.running import run

TEXT = "one\ntwo two two\nthree\nfour"


def test_what_fits_is_shown_as_it_is() -> None:
    assert fitting(TEXT, 80, 4) == TEXT.splitlines()


def test_what_does_not_fit_is_cut_and_counted() -> None:
    assert fitting(TEXT, 5, 3) == ["one", "two t", "... 2 more lines, without --watch"]
    assert fitting(TEXT, 5, 1) == ["... 4 more lines, without --watch"]


def test_ctrl_c_is_the_proper_end_of_a_view(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "is_terminal", lambda _stream: True)
    views = ["one", "two"]

    async def view() -> str:
        if not views:
            raise KeyboardInterrupt
        return views.pop(0)

    namespace = argparse.Namespace(watch=0.01, json=False)
    assert watching.run(namespace, view) == 0
    assert [each.partition("\x1b[K")[0] for each in capsys.readouterr().out.split("\x1b[H")] == [
        "",
        "one",
        "two",
    ]


def test_each_view_is_written_over_the_one_before_and_an_error_is_one_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 6)))
    views = ["\n".join("abcdefgh"), "short"]

    async def look() -> str:
        if not views:
            raise asyncio.CancelledError
        return views.pop(0)

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await watching._watch(0.01, look)

    run(scenario())
    first, second = capsys.readouterr().out.split("\x1b[H")[1:]
    end = "\x1b[K\n\x1b[K\nevery 0.01 s; Ctrl-C ends it\x1b[J"
    assert first == "a\x1b[K\nb\x1b[K\n... 6 more lines, without --watch" + end
    assert second == "short" + end
