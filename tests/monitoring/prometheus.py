"""Prometheus and its promtool, where they are installed: the package `prometheus` of Debian."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
RULES = DEPLOY / "distlog.rules.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="prometheus and promtool are not installed (on Debian: apt-get install prometheus)",
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool; it has a minute."""
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


class Prometheus:
    """One that runs for a test, on an address and a directory of its own."""

    def __init__(
        self, directory: Path, host: str, port: int, targets: Sequence[str], tls: str = ""
    ) -> None:
        """targets: host:port of each node.  tls: what it says to nodes with certificates, in YAML."""
        self._tls = tls
        self.address = f"{host}:{port}"
        self._directory = directory
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, rules: str) -> None:
        """Start it with these rules; it asks the nodes twice in a second."""
        (self._directory / "rules.yml").write_text(rules, "utf-8")
        targets = ", ".join(f'"{target}"' for target in self._targets)
        configuration = self._directory / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: distlog, static_configs: [{{targets: [{targets}]}}]{self._tls}}}\n",
            "utf-8",
        )
        with (self._directory / "prometheus.out").open("wb") as output:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.address}",
                    "--log.level=warn",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that is a number; none while it does not answer."""
        answer = await self._get(f"query?{urlencode({'query': expression})}")
        found = answer["data"]["result"] if answer else []
        series = [(each["metric"], float(each["value"][1])) for each in found]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    async def firing(self) -> set[tuple[str, str]]:
        """Return the alerts that fire, each with the node that it is about, or ""."""
        answer = await self._get("alerts")
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in (answer["data"]["alerts"] if answer else [])
            if alert["state"] == "firing"
        }

    async def _get(self, path: str) -> Any:
        status, text = await get(self.address, f"/api/v1/{path}")
        return json.loads(text) if status == 200 else None


async def get(address: str, path: str, context: SSLContext | None = None) -> tuple[int, str]:
    """Return status and body of a page; 0 and "" where nobody answers.  context: with what the connection is encrypted."""
    url = f"http{'s' if context else ''}://{address}{path}"
    return await asyncio.to_thread(_get, url, context)


def _get(url: str, context: SSLContext | None) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
