"""Messages around one large bytes field, taken apart and put together without copying it more than once.

protobuf copies such a field into its own memory, and once more when it is asked for; for megabytes that costs as much as
everything else that is done with them.  So the field is cut out of the serialized message, or added to it, and only the rest of the
message goes through protobuf.  What is on the wire is the same.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

# Wire types of protobuf's encoding: varint, 8 bytes, bytes with their length, 4 bytes.
VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5
# A varint has at most ten bytes.
SHIFT_MAX = 63


def join(message: bytes, number: int, *parts: bytes | memoryview) -> bytes:
    """Return a serialized message with the bytes field `number`, which it does not have, added in pieces."""
    size = sum(map(len, parts))
    if not size:
        return message
    return b"".join((message, _varint(number << 3 | SIZED), _varint(size), *parts))


def split(data: bytes, number: int) -> tuple[bytes, memoryview]:
    """Return a serialized message without its bytes field `number`, and that field, as a view of `data`; empty if it has none.

    Raises DecodeError if `data` is no message.
    """
    view = memoryview(data)
    rest: list[memoryview] = []
    found = view[:0]
    position = kept = 0
    while position < len(data):
        start = position
        tag, position = _read_varint(data, position)
        wire_type = tag & 7
        if wire_type == SIZED:
            size, position = _read_varint(data, position)
            end = position + size
        elif wire_type == VARINT:
            end = _read_varint(data, position)[1]
        elif wire_type in (FIXED64, FIXED32):
            end = position + (8 if wire_type == FIXED64 else 4)
        else:
            raise DecodeError("unknown wire type")
        if end > len(data):
            raise DecodeError("it ends within a field")
        if tag == number << 3 | SIZED:
            # Of several, the last one counts.
            found = view[position:end]
            rest.append(view[kept:start])
            kept = end
        position = end
    rest.append(view[kept:])
    return b"".join(rest), found


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while position < len(data) and shift <= SHIFT_MAX:
        octet = data[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise DecodeError("a number without an end")
