"""The systemd unit: what systemd takes, with the command and the settings that the installed program takes."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from distlog import serve
from distlog.config import load
from tests.deploy.containers import DEPLOY, Run
from tests.deploy.reading import read_settings
from tests.monitoring.prometheus import get
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import random_host, until

UNIT = DEPLOY / "systemd" / "distlog@.service"
SETTINGS = DEPLOY / "systemd" / "node.toml"
PROGRAM = "/opt/distlog/bin/distlog"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="there is no systemd-analyze here (on Debian: apt-get install systemd)",
)


def sections() -> dict[str, dict[str, list[str]]]:
    """Return the unit's keys, each with its values in order."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(section, {}).setdefault(key, []).append(value)
    return found


def value(key: str, section: str = "Service") -> str:
    (found,) = sections()[section][key]
    return found


def start_of(node_id: str, config: Path) -> Run:
    """Return what the unit starts for an instance, with its settings in another place."""
    program, *arguments = shlex.split(value("ExecStart").replace("%i", node_id))
    assert program == PROGRAM
    assert f"/etc/distlog/{node_id}.toml" in arguments
    where = [each.replace(f"/etc/distlog/{node_id}.toml", str(config)) for each in arguments]
    return Run(node_id, ("distlog", *where), {})


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, with the installed program where it has /opt/distlog."""
    text = UNIT.read_text("utf-8")
    assert PROGRAM in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace(PROGRAM, f"{sysconfig.get_path('scripts')}/distlog"), "utf-8")
    return path


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_unit(installed: Path) -> None:
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(installed))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_finds_a_key_that_is_none(installed: Path) -> None:
    text = installed.read_text("utf-8")
    installed.write_text(text.replace("RestartSec=", "RestartSecs="), "utf-8")
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(installed))
    assert "RestartSecs" in done.stdout + done.stderr


@needs_systemd
def test_the_unit_is_exposed_to_little(installed: Path) -> None:
    done = systemd_analyze("security", "--offline=true", str(installed))
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= 2.0


def test_the_command_and_the_example_of_settings_are_what_a_node_takes() -> None:
    config = read_settings(start_of("n1", SETTINGS))
    assert config.node_id == "n1"
    assert config.data_dir == "/var/lib/distlog/n1"
    assert config.expect == 3
    assert len(config.join or ()) == 3
    assert config.advertise in (config.join or ())


def test_a_node_starts_with_them_waits_for_the_others_and_stops_as_the_unit_has_it(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(["n1"])
    node = cluster["n1"]
    # The machine's own name and all of its addresses are one address here; nobody is at those of the others.
    hosts = {"0.0.0.0": node.host, "node1.example.com": node.host}
    hosts |= {f"node{number}.example.com": random_host() for number in (2, 3)}
    settings = SETTINGS.read_text("utf-8")
    for name, address in hosts.items():
        assert name in settings
        settings = settings.replace(name, address)
    placed = tmp_path / "n1.toml"
    placed.write_text(settings, "utf-8")
    (serve, *arguments) = start_of("n1", placed).arguments
    assert serve == "serve"
    place = "/var/lib/distlog/n1"
    node.arguments = [each.replace(place, str(node.data_dir)) for each in arguments]
    assert str(node.data_dir) in node.arguments
    node.variables = {"DISTLOG_HTTP_LISTEN": node.http_address}

    async def scenario() -> None:
        cluster.start("n1")

        async def waits() -> bool:
            return (await get(node.http_address, "/readyz"))[1].startswith("not ready: forming: ")

        await until(waits, "it waits for the others", describe=cluster.describe)
        node.signal(signal.Signals[value("KillSignal")])
        assert await node.wait_for_exit(float(value("TimeoutStopSec"))) == 0

    asyncio.run(scenario())


def test_nothing_that_the_unit_says_stands_in_the_settings_again() -> None:
    given = tomllib.loads(SETTINGS.read_text("utf-8"))
    assert not {"node_id", "data_dir"} & given.keys()
    assert load({"config": str(SETTINGS), "node_id": "n2"}, {}).node_id == "n2"


def test_the_data_is_in_the_directory_that_the_unit_makes_and_waits_for() -> None:
    directory = "/var/lib/distlog/%i"
    assert f"--data-dir {directory}" in value("ExecStart")
    assert f"/var/lib/{value('StateDirectory')}" == directory
    assert value("RequiresMountsFor", "Unit") == directory
    assert value("ProtectSystem") == "strict"


def test_a_stop_is_the_one_that_a_node_knows_and_has_time() -> None:
    needed = (
        serve.HAND_OVER_TIMEOUT_S
        + serve.CALLS_STOP_TIMEOUT_S
        + serve.NODE_STOP_TIMEOUT_S
        + serve.LEAVE_TIMEOUT_S
    )
    assert value("KillSignal") == "SIGTERM"
    assert float(value("TimeoutStopSec")) >= needed


def test_a_node_that_failed_is_started_again_and_one_with_wrong_settings_is_not() -> None:
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus") == "2"
    # As often as it may, at this pace, well within the time that is looked at: otherwise it would be started for ever.
    attempts, pause_s = int(value("StartLimitBurst", "Unit")), float(value("RestartSec"))
    assert attempts * (pause_s + 10) < float(value("StartLimitIntervalSec", "Unit"))


def test_the_service_is_not_root_and_has_descriptors_for_its_files() -> None:
    assert value("User") == value("Group") == "distlog"
    assert int(value("LimitNOFILE")) >= 64 * serve.DESCRIPTORS_MIN
    assert value("NoNewPrivileges") == "yes"
    assert value("CapabilityBoundingSet") == ""
