"""What the simulated disk is made of: files and directories that have a current and a durable
state.

The two differ by pages, sizes and names; this module knows which, and what may be left of the
current state after a power cut.  `SimulatedDisk` puts paths, handles and faults on top.

A failed sync forgets: as Linux does, it leaves the pages readable and takes them for clean, so that
no later sync writes them, unless they are written to again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from random import Random
from typing import NamedTuple, Protocol

import numpy as np

PAGE_SIZE = 4096


class Unsynced(NamedTuple):
    """One thing that a power cut keeps or takes, whatever becomes of the others."""

    # "page", "size" or "name".
    kind: str
    # Which file or directory it is a part of.
    owner: int
    # The page's number, the place of the size among `sizes`, or the name.
    part: int | str


class Survival(Protocol):
    """Decides what a power cut keeps."""

    def pages(self, file: MediumFile, pages: list[int]) -> list[int]:
        """Return those of the unsynced `pages` that reached the medium."""

    def size(self, file: MediumFile) -> int:
        """Return one of `file.sizes`."""

    def name(self, directory: MediumDirectory, name: str) -> bool:
        """Tell whether the change of a name reached the medium."""


class RandomSurvival:
    """Any part, as a seed has it."""

    def __init__(self, random: Random) -> None:
        self._random = random
        # How many pages did not reach the medium.
        self.lost_page_count = 0

    def pages(self, file: MediumFile, pages: list[int]) -> list[int]:
        keep = self._random.choice((0.0, 0.5, 1.0, self._random.random()))
        kept = [page for page in pages if self._random.random() < keep]
        self.lost_page_count += len(pages) - len(kept)
        return kept

    def size(self, file: MediumFile) -> int:
        return self._random.choice(file.sizes)

    def name(self, directory: MediumDirectory, name: str) -> bool:
        return self._random.random() < 0.5


class ChosenSurvival:
    """Exactly what a test names; of the sizes of one file the last that is named."""

    def __init__(self, kept: Collection[Unsynced]) -> None:
        self._kept = kept

    def pages(self, file: MediumFile, pages: list[int]) -> list[int]:
        return [page for page in pages if Unsynced("page", id(file), page) in self._kept]

    def size(self, file: MediumFile) -> int:
        for place in range(len(file.sizes) - 1, 0, -1):
            if Unsynced("size", id(file), place) in self._kept:
                return file.sizes[place]
        return file.sizes[0]

    def name(self, directory: MediumDirectory, name: str) -> bool:
        return Unsynced("name", id(directory), name) in self._kept


class MediumFile:
    """What a process reads of one file, and what the medium holds of it."""

    def __init__(self) -> None:
        # Whole pages, at least as many as the size needs; zeros beyond the size.  Replaced, never
        # resized: maps look into it.
        self.content = bytearray()
        self.size = 0
        self.durable = bytearray()
        # Sizes that a crash may find: the durable one first, then each one since the last sync.
        self.sizes = [0]
        # Pages written by `write` or moved by a change of size since the last sync.
        self.dirty: set[int] = set()
        # Bytes [0, mapped_size) may have been written through a map since the last sync.
        self.mapped_size = 0
        self.map_count = 0
        # Pages that a failed sync took for clean, as they were then: no sync writes them any more.
        self.forgotten: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self.size

    def read(self, position: int, size: int) -> bytes:
        return bytes(self.content[position : min(position + size, self.size)])

    def write(self, position: int, data: bytes) -> None:
        end = position + len(data)
        assert end <= self.size
        # Through a view: a slice assignment to the bytearray itself is refused while a map looks at
        # it.
        memoryview(self.content)[position:end] = data
        self._touch(position, end)

    def resize(self, size: int) -> None:
        if size > len(self.content):
            assert not self.map_count, (
                "close the maps of a file before it grows: their bytes would not follow"
            )
            content = bytearray(max(_whole_pages(size), min(2 * len(self.content), 1 << 26)))
            content[: self.size] = memoryview(self.content)[: self.size]
            self.content = content
        if size < self.size:
            memoryview(self.content)[size : self.size] = bytes(self.size - size)
        self._touch(*sorted((size, self.size)))
        self.size = size
        if size != self.sizes[-1]:
            self.sizes.append(size)

    def _touch(self, first: int, end: int) -> None:
        self.dirty.update(range(first // PAGE_SIZE, -(-end // PAGE_SIZE)))

    def sync(self) -> None:
        self._store(self._dirty_pages())
        self.sizes = [self.size]
        self.dirty.clear()
        if not self.map_count:
            self.mapped_size = 0

    def forget(self) -> None:
        """Take every unsynced page for clean, without writing it: what a failed sync does."""
        for page in self._dirty_pages():
            self.forgotten[page] = self._page(page)
        self.dirty.clear()

    def unsynced(self) -> Iterator[Unsynced]:
        """Yield what a power cut may take; pages that are the same either way are left out."""
        pages = self._unsynced_pages()
        self._extend_durable()
        for page in pages:
            span = slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
            if self.content[span] != self.durable[span]:
                yield Unsynced("page", id(self), page)
        yield from (Unsynced("size", id(self), place) for place in range(1, len(self.sizes)))

    def write_back(self, random: Random) -> None:
        self._store(page for page in self._dirty_pages() if random.random() < 0.5)
        # Sizes reach the medium in their order.
        del self.sizes[: random.randrange(len(self.sizes))]

    def after_crash(self, survival: Survival) -> MediumFile:
        survivor = MediumFile()
        pages = survival.pages(self, self._unsynced_pages())
        survivor.content = bytearray(max(len(self.content), len(self.durable)))
        survivor.content[: len(self.durable)] = self.durable
        for first, end in _ranges(pages):
            survivor.content[first:end] = memoryview(self.content)[first:end]
        survivor.size = survival.size(self)
        survivor.content[survivor.size :] = bytes(len(survivor.content) - survivor.size)
        survivor.durable = bytearray(survivor.content)
        survivor.sizes = [survivor.size]
        return survivor

    def copy(self) -> MediumFile:
        twin = MediumFile()
        twin.content = bytearray(self.content)
        twin.size = self.size
        twin.durable = bytearray(self.durable)
        twin.sizes = list(self.sizes)
        twin.dirty = set(self.dirty)
        twin.mapped_size = self.mapped_size
        twin.forgotten = dict(self.forgotten)
        return twin

    def _unsynced_pages(self) -> list[int]:
        """Return the pages that a power cut may take, or may have left as they are now."""
        pages = self._changed_pages()
        return sorted({*pages, *self.forgotten}) if self.forgotten else pages

    def _dirty_pages(self) -> list[int]:
        """Return the pages that a sync writes: all but those that look clean."""
        pages, forgotten = self._changed_pages(), self.forgotten
        if not forgotten:
            return pages
        return [
            page
            for page in pages
            if page in self.dirty or forgotten.get(page, b"") != self._page(page)
        ]

    def _page(self, page: int) -> bytes:
        return bytes(self.content[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])

    def _changed_pages(self) -> list[int]:
        if not self.mapped_size:
            return sorted(self.dirty)
        self._extend_durable()
        end = _whole_pages(self.mapped_size)
        now = np.frombuffer(self.content, dtype=np.uint64, count=end // 8)
        then = np.frombuffer(self.durable, dtype=np.uint64, count=end // 8)
        changed = (now != then).reshape(-1, PAGE_SIZE // 8).any(axis=1)
        return sorted(self.dirty.union(np.flatnonzero(changed).tolist()))

    def _store(self, pages: Iterable[int]) -> None:
        self._extend_durable()
        content = memoryview(self.content)
        for first, end in _ranges(pages):
            self.durable[first:end] = content[first:end]
            for page in range(first // PAGE_SIZE, end // PAGE_SIZE) if self.forgotten else ():
                self.forgotten.pop(page, None)

    def _extend_durable(self) -> None:
        self.durable.extend(bytes(max(0, len(self.content) - len(self.durable))))


class MediumDirectory:
    """Names, as a process sees them and as the medium holds them."""

    def __init__(self) -> None:
        self.names: dict[str, MediumDirectory | MediumFile] = {}
        self.durable_names: dict[str, MediumDirectory | MediumFile] = {}

    def files(self) -> Iterator[MediumFile]:
        """Yield every file below, in the order of names."""
        for _, node in sorted(self.names.items()):
            if isinstance(node, MediumDirectory):
                yield from node.files()
            else:
                yield node

    def unsynced(self, seen: set[int]) -> Iterator[Unsynced]:
        """Yield what a power cut may take of all below, files that lost their name included."""
        for name in sorted(self.names.keys() | self.durable_names.keys()):
            now, then = self.names.get(name), self.durable_names.get(name)
            if now is not then:
                yield Unsynced("name", id(self), name)
            for node in (now, then):
                if node is None or id(node) in seen:
                    continue
                seen.add(id(node))
                if isinstance(node, MediumDirectory):
                    yield from node.unsynced(seen)
                else:
                    yield from node.unsynced()

    def after_crash(
        self, survival: Survival, survivors: dict[int, MediumDirectory | MediumFile]
    ) -> MediumDirectory:
        survivor = MediumDirectory()
        for name in sorted(self.names.keys() | self.durable_names.keys()):
            now, then = self.names.get(name), self.durable_names.get(name)
            node = now if now is then or survival.name(self, name) else then
            if node is None:
                continue
            # A file that a crash finds under two names (a rename half done) is one file.
            twin = survivors.get(id(node))
            if twin is None:
                if isinstance(node, MediumDirectory):
                    twin = node.after_crash(survival, survivors)
                else:
                    twin = node.after_crash(survival)
                survivors[id(node)] = twin
            survivor.names[name] = survivor.durable_names[name] = twin
        return survivor

    def copy(self, twins: dict[int, MediumDirectory | MediumFile]) -> MediumDirectory:
        twin = MediumDirectory()
        for source, target in (
            (self.names, twin.names),
            (self.durable_names, twin.durable_names),
        ):
            for name, node in source.items():
                if id(node) not in twins:
                    twins[id(node)] = (
                        node.copy(twins) if isinstance(node, MediumDirectory) else node.copy()
                    )
                target[name] = twins[id(node)]
        return twin


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _ranges(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of ascending page numbers, neighbours as one."""
    first = end = -1
    for page in pages:
        if page * PAGE_SIZE != end:
            if end >= 0:
                yield first, end
            first = page * PAGE_SIZE
        end = (page + 1) * PAGE_SIZE
    if end >= 0:
        yield first, end
