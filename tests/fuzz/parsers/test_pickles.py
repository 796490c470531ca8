"""No parser unpickles: what it does with a pickle is what it does with any other noise."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.fuzz.parsers.test_parsers import parsers
from tests.fuzz.pickles import pickles


def test_the_pickles_do_harm_to_who_loads_them(tmp_path: Path) -> None:
    for number, data in enumerate(pickles(tmp_path / "harm")[: pickle.HIGHEST_PROTOCOL + 1]):
        pickle.loads(data)
        assert (tmp_path / "harm").is_dir(), number
        (tmp_path / "harm").rmdir()


def test_no_parser_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "harm"
    given = pickles(path)
    tables = parsers(tmp_path).values()
    # Not through a name either that somebody else has taken of it: the path shows that.
    for name in ("loads", "load", "Unpickler", "_Unpickler", "_loads"):
        monkeypatch.setattr(pickle, name, None)
    for parser in tables:
        for example in parser.examples[:3]:
            for data in given:
                if isinstance(example, str):
                    inputs = [data.decode("latin-1"), example + data.decode("latin-1")]
                else:
                    middle = len(example) // 2
                    inputs = [data, example + data, example[:middle] + data + example[middle:]]
                for each in inputs:
                    try:
                        parser.parse(each)
                    except parser.refusals:
                        continue
    assert not path.exists()
