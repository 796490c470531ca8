"""A block: one batch of records as it travels, is journaled, and is stored.

    header   record_count u32, attributes u16, zero u16, data_crc32c u32, frames_size u32   (little-endian, 16 bytes)
    lengths  record_count x u32: the size of each record's data, without its frame's prefix
    frames   record_count x [8-byte little-endian length][data]: the store's own format, byte for byte

A producer frames its records once; the server checks the block once (`Block.decode`), and from then on the frames are
copied but never taken apart.  The lengths travel beside the frames so that the check and the index rows are vectorised:
nothing here runs Python per record except `Block.from_records` and `records`, which belong to the client.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from distlog.errors import InvalidRequest

HEADER = struct.Struct("<IHHII")
PREFIX = struct.Struct("<Q")
PREFIX_SIZE = 8
# Attribute bit 0: the records are serialized `log.v1.Record` messages (key, headers, value) and not plain values.
ATTRIBUTE_STRUCTURED = 1
ATTRIBUTES_KNOWN = ATTRIBUTE_STRUCTURED


# Fewer bytes are copied faster than an array is made of them.
VIEW_SIZE_MIN = 4 << 10


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of `data`."""
    # The C library takes bytes, and arrays of them; of any other buffer only a copy.
    octets = data if isinstance(data, bytes) else np.frombuffer(data, dtype=np.uint8)
    return int(google_crc32c.value(octets))


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One batch, checked: `frames` holds exactly the records that `lengths` announces, and `data_crc32c` is theirs."""

    attributes: int
    data_crc32c: int
    # Bytes of each record's data, uint32, shape (record_count,), record_count >= 1.
    lengths: npt.NDArray[np.uint32]
    # A view of what a large block was decoded from, which it keeps.
    frames: bytes | memoryview

    @property
    def record_count(self) -> int:
        return len(self.lengths)

    @property
    def size(self) -> int:
        """Bytes that the block takes in a store, prefixes included."""
        return len(self.frames)

    @property
    def encoded_size(self) -> int:
        """Bytes that `encode` returns."""
        return HEADER.size + 4 * len(self.lengths) + len(self.frames)

    @classmethod
    def from_records(cls, records: Sequence[bytes], attributes: int = 0) -> Block:
        """Frame `records`, of which there is at least one; empty ones are legal."""
        assert records, "a block holds at least one record"
        if len(records) == 1:
            frames = PREFIX.pack(len(records[0])) + records[0]
        else:
            parts: list[bytes] = [b""] * (2 * len(records))
            parts[0::2] = [PREFIX.pack(len(record)) for record in records]
            parts[1::2] = records
            frames = b"".join(parts)
        lengths = np.fromiter(map(len, records), dtype="<u4", count=len(records))
        return cls(attributes, crc32c(frames), lengths, frames)

    @classmethod
    def join(cls, blocks: Sequence[Block]) -> Block:
        """Return one block with the records of all, in order.  Their attributes must be equal."""
        first = blocks[0]
        if len(blocks) == 1:
            return first
        assert all(block.attributes == first.attributes for block in blocks), "attributes differ"
        frames = b"".join([block.frames for block in blocks])
        lengths = np.concatenate([block.lengths for block in blocks])
        return cls(first.attributes, crc32c(frames), lengths, frames)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Block:
        """Parse and check an encoded block, which must not change afterwards: what is large is not copied.

        Raises InvalidRequest if a length, a prefix or the checksum does not agree with the bytes: the sender must encode
        it again; nothing of it may be stored.
        """
        view = memoryview(data)
        if len(view) < HEADER.size:
            raise InvalidRequest(field="block", problem="shorter than its header")
        record_count, attributes, zero, data_crc32c, frames_size = HEADER.unpack_from(view)
        if attributes & ~ATTRIBUTES_KNOWN or zero:
            raise InvalidRequest(field="block", problem=f"unknown attributes {attributes:#x}")
        if record_count == 0:
            raise InvalidRequest(field="block", problem="holds no record")
        frames_start = HEADER.size + 4 * record_count
        if len(view) != frames_start + frames_size:
            raise InvalidRequest(field="block", problem="its size is not what its header says")
        lengths = np.frombuffer(view, dtype="<u4", count=record_count, offset=HEADER.size)
        frames: bytes | memoryview = view[frames_start:]
        if frames_size < VIEW_SIZE_MIN:
            frames = bytes(frames)
        if not frames_match(frames, lengths):
            raise InvalidRequest(
                field="block", problem="a record's prefix disagrees with its length"
            )
        if crc32c(frames) != data_crc32c:
            raise InvalidRequest(
                field="block", problem="its checksum is wrong: it was changed on its way"
            )
        return cls(attributes, data_crc32c, lengths, frames)

    def encode(self) -> bytes:
        """Return the block's bytes, the format at the top of this file."""
        return b"".join(self.parts())

    def parts(self) -> tuple[bytes, bytes, bytes | memoryview]:
        """Return the block's bytes in pieces, for who joins them with others and would copy a large block once more."""
        header = HEADER.pack(
            len(self.lengths), self.attributes, 0, self.data_crc32c, len(self.frames)
        )
        return header, self.lengths.tobytes(), self.frames

    def records(self) -> Iterator[bytes]:
        """Yield the data of each record."""
        return split_frames(self.frames)


def frame_positions(lengths: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Return where each record's frame starts, uint64, relative to the first: shape of `lengths`."""
    ends = np.cumsum(lengths.astype(np.uint64) + np.uint64(PREFIX_SIZE))
    positions = np.empty_like(ends)
    positions[0] = 0
    positions[1:] = ends[:-1]
    return positions


def frames_match(frames: bytes | memoryview, lengths: npt.NDArray[np.uint32]) -> bool:
    """Tell whether `frames` is exactly one frame for each of `lengths`, prefixes included."""
    count = len(lengths)
    if count == 1:
        length = int(lengths[0])
        return len(frames) == length + PREFIX_SIZE and PREFIX.unpack_from(frames)[0] == length
    if int(lengths.sum(dtype=np.uint64)) + PREFIX_SIZE * count != len(frames):
        return False
    # Every eight bytes of the frames as a number: one look-up for each record, where it should begin.
    numbers = np.ndarray(len(frames) - PREFIX_SIZE + 1, dtype="<u8", buffer=frames, strides=(1,))
    return bool((numbers[frame_positions(lengths).astype(np.intp)] == lengths).all())


def split_frames(frames: bytes | memoryview) -> Iterator[bytes]:
    """Yield the data of each frame of a checked block."""
    position = 0
    size = len(frames)
    while position < size:
        (length,) = PREFIX.unpack_from(frames, position)
        position += PREFIX_SIZE
        yield bytes(frames[position : position + length])
        position += length


def split_exactly(frames: bytes, record_count: int) -> list[bytes]:
    """Return the data of each frame.  Raises ValueError unless `frames` is exactly `record_count` frames, of 1 or more."""
    size, remainder = divmod(len(frames), record_count)
    if not remainder and size >= PREFIX_SIZE and _are_of_size(frames, record_count, size):
        return [
            frames[end - size + PREFIX_SIZE : end] for end in range(size, len(frames) + 1, size)
        ]
    records: list[bytes] = []
    position, end = 0, len(frames) - PREFIX_SIZE
    unpack, append = PREFIX.unpack_from, records.append
    while position <= end:
        start = position + PREFIX_SIZE
        position = start + unpack(frames, position)[0]
        append(frames[start:position])
    if position != len(frames) or len(records) != record_count:
        raise ValueError(f"the frames are not {record_count} records")
    return records


def _are_of_size(frames: bytes, count: int, size: int) -> bool:
    """Tell whether `frames`, which has `count` times `size` bytes, is frames of that size."""
    numbers = np.ndarray(count, dtype="<u8", buffer=frames, strides=(size,))
    return bool((numbers == size - PREFIX_SIZE).all())
