"""No test of a command depends on how the shell that runs the tests is configured."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DISTLOG_"):
            monkeypatch.delenv(name)
