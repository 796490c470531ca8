"""Only the published sources of the pinned library are run."""

from __future__ import annotations

import importlib
import sys
from time import perf_counter

import pytest

import distlog.consensus.library as binding
from distlog.consensus.pinned_library import SHA256, VERSION, check_library
from distlog.errors import LibraryUnsuitable


def installed(name: str) -> bytes:
    """Return the installed source of one of the library's modules."""
    module = importlib.import_module(f"pysyncobj.{name}")
    assert module.__file__ is not None
    with open(module.__file__, "rb") as file:
        return file.read()


def test_the_installed_library_is_the_pinned_one() -> None:
    check_library(VERSION, installed)


def test_everything_that_runs_in_a_node_is_pinned() -> None:
    """Beside them only what concerns sockets and files is loaded."""
    loaded = {name.removeprefix("pysyncobj.") for name in sys.modules if "pysyncobj." in name}
    not_run = {
        "atomic_replace", "encryptor", "pipe_notifier", "tcp_connection", "tcp_server", "utility",
        "win_inet_pton",
    }  # fmt: skip
    assert loaded - not_run == SHA256.keys()


@pytest.mark.parametrize("changed", SHA256)
def test_a_changed_file_is_refused_with_what_to_install(changed: str) -> None:
    def read(name: str) -> bytes:
        return installed(name) + (b"\n" if name == changed else b"")

    with pytest.raises(LibraryUnsuitable) as refused:
        check_library(VERSION, read)
    assert f"its {changed}.py is not the published one" in str(refused.value)
    assert "pysyncobj==0.3.17" in str(refused.value)


def test_another_version_is_refused_without_a_look_at_its_files() -> None:
    with pytest.raises(LibraryUnsuitable, match=r"version 0\.3\.18 is installed"):
        check_library("0.3.18", lambda _name: pytest.fail("no file is looked at"))


def test_a_source_that_cannot_be_read_is_refused() -> None:
    def read(_name: str) -> bytes:
        raise FileNotFoundError("syncobj.py")

    with pytest.raises(LibraryUnsuitable, match=r"syncobj\.py cannot be read"):
        check_library(VERSION, read)


def test_the_library_is_looked_at_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the module that loads it, so that nothing can use it before."""
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "distlog.consensus.pinned_library.check_library",
        lambda version, read: seen.append((version, len(read("syncobj")))),
    )
    source = importlib.util.find_spec(binding.__name__)
    assert source is not None
    assert source.loader is not None
    source.loader.exec_module(importlib.util.module_from_spec(source))
    assert seen == [(VERSION, len(installed("syncobj")))]


def test_looking_costs_no_time_worth_mentioning() -> None:
    """Files that were read a moment ago, as they are after an import."""
    spent = []
    for _ in range(5):
        began_at = perf_counter()
        check_library(VERSION, installed)
        spent.append(perf_counter() - began_at)
    assert min(spent) < 0.002
