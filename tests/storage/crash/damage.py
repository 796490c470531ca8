"""What can happen to a disk: bytes that are cut off, torn or flipped, and power cuts that keep some of what was not synced.

Every function returns a new disk and leaves the one that it is given as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from random import Random

from distlog.storage.simulated_disk import SimulatedDisk

# Operations that change nothing: a power cut before one is the same as before the next.
READING = frozenset({"read", "map"})
# All subsets of so many unsynced things are tried in the full product.
SUBSETS_MAX = 8


class PowerCut(Exception):
    """The machine stopped before this disk operation."""


def files_of(disk: SimulatedDisk, path: str) -> dict[str, bytes]:
    """Return the bytes of every file below `path`."""
    found: dict[str, bytes] = {}
    for name in disk.list_directory(path):
        below = f"{path}/{name}"
        if disk.is_directory(below):
            found |= files_of(disk, below)
        else:
            found[below] = content(disk, below)
    return found


def content(disk: SimulatedDisk, path: str) -> bytes:
    file = disk.open(path, writable=False)
    return file.read_at(0, file.size())


def flipped(disk: SimulatedDisk, path: str, position: int, bit: int) -> SimulatedDisk:
    """Return the disk with one bit of a file changed, durably."""
    twin = disk.kill()
    file = twin.open(path)
    file.write_at(position, [bytes([file.read_at(position, 1)[0] ^ 1 << bit])])
    file.sync()
    return twin


def cut(disk: SimulatedDisk, path: str, size: int) -> SimulatedDisk:
    """Return the disk with a file that ends after `size` bytes."""
    twin = disk.kill()
    twin.open(path).truncate(size)
    return twin


def torn(disk: SimulatedDisk, path: str, position: int, before: bytes) -> SimulatedDisk:
    """Return the disk with a file that has, from `position` on, the bytes that it had `before`; zeros where it had none."""
    twin = disk.kill()
    file = twin.open(path)
    size = file.size()
    rest = before[position:size]
    file.write_at(position, [rest + bytes(size - position - len(rest))])
    return twin


def power_cuts(
    disk: SimulatedDisk, random: Random, *, count: int, full: bool, singles: bool = True
) -> Iterator[SimulatedDisk]:
    """Yield what a power cut may leave: nothing unsynced, all of it, each single thing alone, and `count` random subsets.

    In the full product also all but each single thing, and all subsets where there are few.
    """
    items = disk.unsynced()
    yield disk.crash_keeping([])
    if not items:
        return
    yield disk.crash_keeping(items)
    if full and len(items) <= SUBSETS_MAX:
        for size in range(1, len(items)):
            for kept in combinations(items, size):
                yield disk.crash_keeping(kept)
        return
    if singles and len(items) > 1:
        for place, item in enumerate(items):
            yield disk.crash_keeping([item])
            if full:
                yield disk.crash_keeping([*items[:place], *items[place + 1 :]])
    for _ in range(count):
        yield disk.crash(random)
