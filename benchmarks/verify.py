"""Speed of `distlog verify` beside that of CRC-32C itself, over the same bytes.

    python -m benchmarks.verify [--size 1024] [--runs 5] [--json]

A log is written, and then checked as `distlog verify` checks it: every checksum, every index row, every frame. It is
compared with two things that only compute checksums: over the same files, read in pieces of 1 MiB, and over as many bytes that
lie in memory already.  The three take turns, so that they see the same machine; the files are in the
page cache, and what is counted is processor time, since each is one thread and other processes may be about.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import google_crc32c

from benchmarks.cluster import machine
from distlog.block import PREFIX_SIZE, Block
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.survey import survey_log

# Bytes of a batch and of its records, least and greatest; the share of `--size` that is written.
SHAPES = (
    ("100 B in batches of 256 KiB", 256 << 10, (100, 100), 1.0),
    ("1,000 B in batches of 1 MiB", 1 << 20, (1000, 1000), 1.0),
    ("50 to 150 B in batches of 256 KiB", 256 << 10, (50, 150), 1.0),
    ("500 to 1,500 B in batches of 1 MiB", 1 << 20, (500, 1500), 1.0),
    ("100 B, one by one", 1, (100, 100), 1 / 16),
)
PIECE_SIZE = 1 << 20


def write_log(path: str, size: int, batch_size: int, record_sizes: tuple[int, int]) -> None:
    """Write a log of about `size` bytes; all batches hold the same random records."""
    count = max(1, batch_size // (sum(record_sizes) // 2 + PREFIX_SIZE))
    random = Random(1)
    records = [random.randbytes(random.randint(*record_sizes)) for _ in range(count)]
    block = Block.from_records(records)
    log = Log.create(RealDisk(), path, SegmentLimits())
    for number in range(size // block.size):
        log.append(block, timestamp_ms=number, raft_index=number, term=1)
    log.close()


def checksum_files(paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while data := file.read(PIECE_SIZE):
                google_crc32c.value(data)


def verify(path: str) -> None:
    survey = survey_log(RealDisk(), path, deep=True)
    assert not survey.faults, "what was just written is whole"


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time that something takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(
    size: int, runs: int, batch_size: int, record_sizes: tuple[int, int]
) -> dict[str, float]:
    """Return medians, in GiB of files a second, and of the ratios of each turn."""
    with tempfile.TemporaryDirectory(prefix="distlog-bench-") as directory:
        path = f"{directory}/log"
        write_log(path, size, batch_size, record_sizes)
        files = sorted(Path(path).glob("0*"))
        written = sum(file.stat().st_size for file in files)
        works: dict[str, Callable[[], object]] = {
            "verify": lambda: verify(path),
            "files": lambda: checksum_files(files),
        }
        verify(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = max(files, key=lambda file: file.stat().st_size).read_bytes()
        memory_share = written / len(data)
        turns = []
        for _ in range(runs):
            times = {name: seconds(work) for name, work in works.items()}
            times["memory"] = seconds(lambda: google_crc32c.value(data)) * memory_share
            turns.append(times)
    speeds = {
        name: statistics.median(written / (1 << 30) / turn[name] for turn in turns)
        for name in ("verify", "files", "memory")
    }
    return {
        "size_mib": written / (1 << 20),
        "peak_mib": peak / 1024,
        **{f"{name}_gib_s": speed for name, speed in speeds.items()},
        "verify_to_files": statistics.median(turn["files"] / turn["verify"] for turn in turns),
        "verify_to_memory": statistics.median(turn["memory"] / turn["verify"] for turn in turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=1024, help="MiB of store")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {
        name: measure(int((arguments.size << 20) * share), arguments.runs, batch_size, record_sizes)
        for name, batch_size, record_sizes, share in SHAPES
    }
    if arguments.json:
        print(json.dumps({"machine": machine(), "runs": arguments.runs, **figures}))
        return
    print(f"{machine()}; medians of {arguments.runs} runs, GiB of files a second")
    print(
        f"{'records':36}{'verify':>8}{'files':>8}{'memory':>8}{'ratio':>8}{'ratio':>8}{'peak MiB':>10}"
    )
    for name, row in figures.items():
        values = [row[f"{each}_gib_s"] for each in ("verify", "files", "memory")]
        values += [row["verify_to_files"], row["verify_to_memory"]]
        print(
            f"{name:36}" + "".join(f"{value:8.2f}" for value in values) + f"{row['peak_mib']:10.0f}"
        )


if __name__ == "__main__":
    main()
