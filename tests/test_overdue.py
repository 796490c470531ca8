"""A test that goes on after its time-out fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_A_CALLBACK = """
import asyncio, time
{mark}
def test_waits():
    async def scenario():
        asyncio.get_running_loop().call_soon(time.sleep, {sleep_s})
        await asyncio.sleep(0.05)
    asyncio.run(scenario())
"""


def outcome(directory: Path, text: str, *options: str) -> tuple[int, str]:
    """Return what pytest says of a file of tests, with nothing but the plugin."""
    file = directory / "test_planted.py"
    file.write_text(f"import pytest\n{text}")
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.overdue", *options, str(file)]
    place = {"cwd": ROOT, "env": {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **place)  # type: ignore[call-overload]
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("@pytest.mark.timeout(0.3)", ()),
        ("@pytest.mark.timeout(timeout=0.3)", ()),
        ("", ("-o", "timeout=0.3")),
    ],
)
def test_a_time_out_that_a_callback_swallowed_is_a_failure(
    mark: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    status, said = outcome(tmp_path, IN_A_CALLBACK.format(mark=mark, sleep_s=1), *options)
    assert status == 1, said
    assert "went on after its time-out of 0.3 s" in said


def test_a_test_in_time_passes(tmp_path: Path) -> None:
    text = IN_A_CALLBACK.format(mark="@pytest.mark.timeout(30)", sleep_s=0.1)
    status, said = outcome(tmp_path, text)
    assert status == 0, said
    assert outcome(tmp_path, IN_A_CALLBACK.format(mark="", sleep_s=0.1))[0] == 0
