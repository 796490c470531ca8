"""`distlog serve` reads its flags through the table, and says what is wrong before it touches anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.cli import serve
from distlog.cli.main import main
from distlog.config import SETTINGS, Setting
from tests.cli.commands import parsed


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_every_setting_is_a_flag(row: Setting) -> None:
    assert getattr(parsed(serve, None, row.flag, "value"), row.name) == "value"
    assert getattr(parsed(serve, None), row.name) is None


def test_a_switch_needs_no_value() -> None:
    assert parsed(serve, None, "--insecure").insecure == "true"
    assert parsed(serve, None, "--insecure=false").insecure == "false"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--listen", "0.0.0.0:8400"], "--listen: 0.0.0.0:8400 is reachable from other machines"),
        (["--peers", "n1=127.0.0.1:1"], "--node-id: is required with --peers"),
        (["--config", "absent.toml"], "absent.toml: cannot be read as a TOML file"),
        (
            ["--log-level", "info,distlog.pear=debug"],
            "--log-level: no part of distlog is called distlog.pear: there are distlog.catch_up, ",
        ),
    ],
    ids=["listen", "peers", "file", "level"],
)
def test_a_mistake_is_said_before_a_data_directory_is_made(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    assert f"distlog: error: {problem}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_to_type_next_is_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    serve.announce("n1 is ready")
    assert capsys.readouterr().out == "n1 is ready\n"
