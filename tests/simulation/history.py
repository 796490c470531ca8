"""What clients of a simulated cluster saw, and whether the logs agree with it."""

from __future__ import annotations

from collections.abc import Sequence

from distlog.storage.log import StoredBatch


class History:
    """Every append of every client, by its record, which is unique."""

    def __init__(self) -> None:
        # record -> its offset, for what was acknowledged.
        self.acknowledged: dict[bytes, int] = {}
        # Records of appends that were refused for certain: they must not exist.
        self.refused: set[bytes] = set()
        # producer -> its records in the order sent; they must be in the log in this order, without a hole.
        self.sent: dict[int, list[bytes]] = {}
        self.failures: list[str] = []

    def acknowledge(self, record: bytes, offset: int) -> None:
        known = self.acknowledged.setdefault(record, offset)
        if known != offset:
            self.failures.append(f"{record!r} was acknowledged at {known} and at {offset}")

    def check(self, batches: Sequence[StoredBatch], name: str) -> None:
        """Compare one node's whole log with what the clients saw."""
        records = [record for batch in batches for record in batch.records()]
        offset = 0
        for batch in batches:
            if batch.base_offset != offset:
                self.failures.append(
                    f"{name}: a batch begins at {batch.base_offset}, not at {offset}"
                )
            offset = batch.base_offset + batch.record_count
        places = {record: place for place, record in enumerate(records)}
        if len(places) != len(records):
            self.failures.append(f"{name}: {len(records) - len(places)} records are doubled")
        for record, place in self.acknowledged.items():
            if place >= len(records) or records[place] != record:
                self.failures.append(f"{name}: {record!r}, acknowledged at {place}, is not there")
        for record in self.refused & places.keys():
            self.failures.append(f"{name}: {record!r} was refused and is there at {places[record]}")
        for producer, sent in self.sent.items():
            present = [places[record] for record in sent if record in places]
            if present != sorted(present):
                self.failures.append(f"{name}: the records of producer {producer} are reordered")
            first_missing = next((i for i, record in enumerate(sent) if record not in places), None)
            if first_missing is not None and any(r in places for r in sent[first_missing:]):
                self.failures.append(f"{name}: producer {producer} has a hole at {first_missing}")
