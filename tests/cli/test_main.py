"""Finding the command, and errors that are one line: what is wrong, and what to do."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from distlog import __version__
from distlog.cli import main as main_module
from distlog.cli.main import COMMANDS, main
from distlog.errors import ConfigurationInvalid, DistlogError, NoLeader
from tests.cli.commands import distlog
from tests.client.running import run

GOLDEN = Path(__file__).parent / "golden"
HELPS = {
    "distlog": ["--help"],
    "serve": ["serve", "--help"],
    "produce": ["produce", "--help"],
    "consume": ["consume", "--help"],
    "cluster": ["cluster", "--help"],
    "cluster_status": ["cluster", "status", "--help"],
    "cluster_rejoin": ["cluster", "rejoin", "--help"],
    "recover": ["recover", "--help"],
    "topic": ["topic", "--help"],
    "topic_create": ["topic", "create", "--help"],
    "topic_configure": ["topic", "configure", "--help"],
    "topic_trim": ["topic", "trim", "--help"],
    "topic_delete": ["topic", "delete", "--help"],
    "cluster_members": ["cluster", "members", "--help"],
    "cluster_leave": ["cluster", "leave", "--help"],
    "cluster_target": ["cluster", "target", "--help"],
    "leave": ["leave", "--help"],
    "certs": ["certs", "--help"],
    "cluster_add": ["cluster", "add", "--help"],
    "cluster_remove": ["cluster", "remove", "--help"],
    "cluster_transfer_leadership": ["cluster", "transfer-leadership", "--help"],
    "acl": ["acl", "--help"],
    "acl_add": ["acl", "add", "--help"],
    "acl_remove": ["acl", "remove", "--help"],
    "acl_list": ["acl", "list", "--help"],
    "bench": ["bench", "--help"],
    "bench_produce": ["bench", "produce", "--help"],
    "bench_consume": ["bench", "consume", "--help"],
    "bench_latency": ["bench", "latency", "--help"],
    "inspect": ["inspect", "--help"],
    "verify": ["verify", "--help"],
    "import": ["import", "--help"],
}


@pytest.mark.parametrize("name", HELPS)
def test_the_help_is_the_one_that_was_read_and_agreed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(HELPS[name]) == 0
    golden = GOLDEN / f"{name}.txt"
    text = capsys.readouterr().out
    rewrite = f"python -m distlog {' '.join(HELPS[name])} > tests/cli/golden/{golden.name}"
    assert text == golden.read_text("utf-8"), f"if the change is meant: {rewrite}"


def test_every_command_is_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(command.name in overview and command.summary in overview for command in COMMANDS)


def test_no_command_at_all_is_a_mistake_that_shows_the_overview(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "usage: distlog COMMAND" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"distlog {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["prodcue"], "prodcue: there is no such command; did you mean produce?"),
        (["zzz"], "zzz: there is no such command; see distlog --help"),
        (["serve", "--lisen", "x"], "--lisen: there is no such flag; did you mean --listen?"),
        (["serve", "--data=x"], "--data: there is no such flag; did you mean --data-dir?"),
        (
            ["serve", "extra"],
            "distlog serve: one argument too many: 'extra'; see distlog serve --help",
        ),
        (
            ["serve", "--listen", "8400"],
            "--listen: must be HOST:PORT, for example 127.0.0.1:8400, not '8400'",
        ),
        (["serve", "--node-id"], "--node-id: expected one argument; see distlog serve --help"),
        (
            ["consume", "--count", "x"],
            "--count: must be a number, at least 0, not 'x'; see distlog consume --help",
        ),
        (
            ["consume", "--count", "-1"],
            "--count: must be a number, at least 0, not '-1'; see distlog consume --help",
        ),
        (
            ["consume", "--from", "now"],
            "--from: must be an offset, start, end or a time with its zone like 2026-01-31T12:00:00Z, not 'now'",
        ),
        (
            ["produce", "--timeout", "0"],
            "--timeout: must be a number of seconds above 0, not '0'; see distlog produce --help",
        ),
        (
            ["produce", "--server", "x"],
            "--server: must be HOST:PORT, for example 127.0.0.1:8400, not 'x'",
        ),
        (["cluster", "status", "--jsn"], "--jsn: there is no such flag; did you mean --json?"),
        (
            ["cluster"],
            "distlog cluster: the following arguments are required: ACTION; see distlog cluster --help",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_usage_is_named_with_the_remedy(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"distlog: error: {line}\n"


def test_an_unknown_variable_is_refused_by_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTLOG_SEVER", "127.0.0.1:1")
    assert main(["consume"]) == 2
    assert (
        "DISTLOG_SEVER: there is no such variable; did you mean DISTLOG_SERVER?"
        in capsys.readouterr().err
    )


# --- What a command raises ---


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command fail with `error`."""

    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(main_module, "run", fail)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NoLeader("election", 0.1), 1, str(NoLeader("election", 0.1))),
        (ConfigurationInvalid("--a", "is wrong"), 2, "--a: is wrong"),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "words"),
            1,
            "words: No such file or directory",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device"),
        (DistlogError(), 1, "distlog failed"),
    ],
    ids=["refusal", "usage", "file", "output", "any"],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: Exception,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, error)
    monkeypatch.setattr(main_module, "abandon_stdout", lambda: None)
    assert main(["consume"]) == code
    assert capsys.readouterr().err == f"distlog: error: {line}\n"


def test_a_mistake_of_ours_has_an_incident_id_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ZeroDivisionError("division\nby zero"))
    assert main(["consume"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"distlog: error: internal error, incident [0-9a-f]{8}: ZeroDivisionError: division by zero\. .*report it.*\n",
        error,
    )


def test_the_traceback_of_a_mistake_is_there_for_whoever_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ZeroDivisionError("division by zero"))
    monkeypatch.setenv("DISTLOG_DEBUG", "1")
    assert main(["consume"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["consume"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_python_without_assertions_is_refused() -> None:
    async def scenario() -> None:
        finished = await distlog("--version", flags=("-O",))
        assert (finished.code, finished.output) == (2, b"")
        assert finished.error.startswith("distlog: error: python -O: takes out checks")
        assert finished.error.count("\n") == 1

    run(scenario())
