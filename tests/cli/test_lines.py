"""One record a line, byte for byte, however the bytes arrive."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.cli import lines as lines_module
from distlog.cli.lines import read_lines
from distlog.errors import RecordTooLarge
from tests.client.running import run


def records_of(content: bytes) -> list[bytes]:
    """What the records of a file are, said in another way."""
    lines = content.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


async def read_all(file: int) -> list[bytes]:
    return [line async for lines in read_lines(file) for line in lines]


@given(st.lists(st.text(alphabet="a\n\r\0", max_size=6).map(str.encode), max_size=8))
def test_a_pipe_gives_the_lines_of_its_bytes_however_they_are_cut(chunks: list[bytes]) -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        try:
            records = asyncio.create_task(read_all(reading))
            for chunk in chunks:
                os.write(writing, chunk)
                await asyncio.sleep(0)
            os.close(writing)
            assert await records == records_of(b"".join(chunks))
        finally:
            os.close(reading)

    run(scenario())


@pytest.mark.parametrize(
    ("content", "records"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\n b \n", [b"a\r", b" b "]),
        (b"\xff\0\n", [b"\xff\0"]),
    ],
)
def test_a_file_gives_its_lines_without_their_one_newline(
    content: bytes, records: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    with path.open("rb") as file:
        run(expect(file.fileno(), records))


def test_a_file_longer_than_a_chunk_is_read_to_its_end(tmp_path: Path) -> None:
    records = [b"%d" % number for number in range(100_000)]
    path = tmp_path / "lines"
    path.write_bytes(b"\n".join(records))
    assert path.stat().st_size > 2 * lines_module.CHUNK_SIZE
    with path.open("rb") as file:
        run(expect(file.fileno(), records))


async def expect(file: int, records: list[bytes]) -> None:
    assert await read_all(file) == records


def test_a_line_that_no_cluster_takes_is_refused_after_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n" + bytes(lines_module.LINE_SIZE_MAX + 1))

    async def scenario(file: int) -> None:
        read = read_lines(file)
        assert await anext(read) == [b"a", b"b"]
        with pytest.raises(RecordTooLarge):
            await anext(read)

    with path.open("rb") as file:
        run(scenario(file.fileno()))
