"""The alert rules and the dashboard: what they ask for exists, and each alert has a page that says what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from distlog.logs import LogMemory
from distlog.monitoring.metrics import HISTOGRAM, METRICS
from distlog.server.calls import Ended
from tests.monitoring.prometheus import DEPLOY, ROOT, RULES, needs_prometheus, promtool

DASHBOARD = ROOT / "deploy" / "grafana" / "distlog.json"
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES.read_text("utf-8"), re.MULTILINE)
NAME = re.compile(r"\bdistlog_\w+")


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def queries() -> dict[str, str]:
    """Return each query of the dashboard, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


def expressions() -> list[str]:
    """Return the expressions of the rules."""
    return re.findall(r"^ +expr: >-\n +(.+)$", RULES.read_text("utf-8"), re.MULTILINE)


def is_known(name: str) -> bool:
    """Tell whether this is the name of a sample of some metric."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return name in METRICS or (base in METRICS and METRICS[base].kind == HISTOGRAM)


def test_a_name_that_no_metric_has_is_found() -> None:
    assert is_known("distlog_commit_duration_seconds_bucket")
    assert not is_known("distlog_commit_duration_seconds_total")
    assert not is_known("distlog_ready_count")


def test_every_metric_that_a_rule_or_a_panel_asks_for_exists() -> None:
    assert len(expressions()) == len(ALERTS) > 15
    assert len(queries()) > 30
    for expression in (*expressions(), *queries().values()):
        names = set(NAME.findall(expression))
        assert [name for name in names if not is_known(name)] == [], expression


def test_what_an_alert_waits_for_is_counted_from_zero() -> None:
    """A series that appears with its first count does not increase, and the alert would not see it."""
    rules = RULES.read_text("utf-8")
    (codes,) = re.findall(r'increase\(distlog_calls_total\{code=~"([A-Z_|]+)"\}', rules)
    for is_stream in (False, True):
        assert dict(Ended(is_stream=is_stream).codes) == dict.fromkeys(codes.split("|"), 0)
    (levels,) = re.findall(r'increase\(distlog_log_messages_total\{level=~"([a-z|]+)"\}', rules)
    counted = {level for (_, level), count in LogMemory().counts.items() if count == 0}
    assert set(levels.split("|")) <= counted


def test_labels_that_are_asked_for_exist() -> None:
    for expression in (*expressions(), *queries().values()):
        for name, matchers in re.findall(r"\b(distlog_\w+)\{([^}]*)\}", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            labels = METRICS[name if name in METRICS else base].labels
            asked = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers)
            assert set(asked) <= {*labels, "le"}, expression


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text("utf-8")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == ALERTS
    runbooks = re.findall(r"^ +runbook: (\S+)$", RULES.read_text("utf-8"), re.MULTILINE)
    assert runbooks == [f"docs/alerts.md#{alert.lower()}" for alert in ALERTS]


def test_the_configuration_asks_the_nodes_of_the_procfile() -> None:
    procfile = (ROOT / "Procfile").read_text("utf-8")
    ports = re.findall(r"^n\d: .*node\.sh \S+ \d+ \d+ (\d+)$", procfile, re.MULTILINE)
    asked = re.findall(r'"(127\.0\.0\.1:\d+)"', (DEPLOY / "prometheus.yml").read_text("utf-8"))
    assert asked == [f"127.0.0.1:{port}" for port in ports]
    assert len(asked) == 3


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@needs_prometheus
def test_promtool_takes_the_rules_and_the_configuration() -> None:
    for arguments in (("rules", str(RULES)), ("config", str(DEPLOY / "prometheus.yml"))):
        checked = promtool("check", *arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_prometheus
def test_the_rules_pass_their_unit_tests_and_each_has_one() -> None:
    path = DEPLOY / "distlog.rules.test.yml"
    tested = promtool("test", "rules", str(path))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", path.read_text("utf-8"), re.MULTILINE)
    assert list(dict.fromkeys(fired)) == ALERTS


@needs_prometheus
def test_a_rule_that_never_fires_fails_its_unit_test(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    rules = tmp_path / RULES.name
    never = re.sub(r"(expr: >-\n +).+", r"\1vector(0) > 1", rules.read_text("utf-8"))
    rules.write_text(never, "utf-8")
    tested = promtool("test", "rules", str(tmp_path / "distlog.rules.test.yml"))
    assert tested.returncode != 0
    said = tested.stdout + tested.stderr
    assert [alert for alert in ALERTS if f"alertname: {alert}," not in said] == []
