"""Which records of a segment lie in batches whose checksum was found right since its files were opened.

A record that is read alone has no checksum of its own, and its whole batch would cost a hundred times as much each time.  One
bit a record: an eighth of the records of a segment in bytes, for as long as its files are open.
"""

from __future__ import annotations


class VerifiedRecords:
    """Bits by the number of the record in its segment."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, number: int) -> bool:
        octet = number >> 3
        return octet < len(self._bits) and self._bits[octet] >> (number & 7) & 1 == 1

    def add(self, first: int, end: int) -> None:
        """Note the records [first, end)."""
        missing = (end + 7 >> 3) - len(self._bits)
        if missing > 0:
            self._bits += bytes(missing)
        whole, whole_end = first + 7 >> 3, end >> 3
        if whole >= whole_end:
            self._add_each(first, end)
            return
        self._bits[whole:whole_end] = b"\xff" * (whole_end - whole)
        self._add_each(first, whole << 3)
        self._add_each(whole_end << 3, end)

    def _add_each(self, first: int, end: int) -> None:
        for number in range(first, end):
            self._bits[number >> 3] |= 1 << (number & 7)
