"""What the tests of files run on: the machine's disk, and the one that forgets what was not synced."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.storage.disk import Disk, RealDisk
from distlog.storage.simulated_disk import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and a path on it where nothing is yet."""
    if request.param == "real":
        return RealDisk(), f"{tmp_path}/log"
    return SimulatedDisk(), "/log"
