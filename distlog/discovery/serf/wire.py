"""The bytes of the agent's RPC (IPC version 1, the same from Serf 0.8 on).

    request   {"Command": text, "Seq": number} and, for most commands, a body, which is another map
    answer    {"Seq": number, "Error": text} and, for some commands, a body
    record    of a stream: an answer without an error and with a body, under the Seq of the request that opened the stream

Both are msgpack maps on a TCP connection, one after the other, without frames: whoever takes a body for a header, or a header for a
body, never finds the way back.  So a decoder is told of every header before it reads on, and what cannot be right ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

# Bytes of one map, and elements of one array or map in it.  A gossip of two thousand members fits.
ANSWER_SIZE_MAX = 1 << 20
ELEMENT_COUNT_MAX = 10_000
# Bytes of a request.  The agent itself takes 512 for tags and for an event.
REQUEST_SIZE_MAX = 64 << 10
# The agent says these before it has read the body of the request, which it then takes for the next header.
OUT_OF_STEP = frozenset({"Authentication required", "Handshake required", "Unsupported command"})


class AnswerMalformed(ValueError):
    """No agent sends this.  The connection cannot be read any further."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer or a record; `error` is empty when there is none."""

    seq: int
    error: str
    body: Mapping[bytes, Any] | None


def encode_request(command: str, seq: int, body: Mapping[str, object] | None) -> bytes:
    """Return the bytes of a request.  Raises ValueError if they are more than REQUEST_SIZE_MAX."""
    # One type for text and bytes, as every version of the agent decodes it: it drops a connection that sends the newer `bin` in a map.
    pack = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape").pack
    data: bytes = pack({"Command": command, "Seq": seq})
    if body is not None:
        data += pack(body)
    if len(data) > REQUEST_SIZE_MAX:
        raise ValueError(f"has {len(data)} bytes, and {REQUEST_SIZE_MAX} are the limit")
    return data


class AnswerDecoder:
    """Turns the bytes of one connection into answers."""

    def __init__(self, expects_body: Callable[[int, str], bool]) -> None:
        """`expects_body` says of the Seq and the Error of a header whether a body follows; it may raise AnswerMalformed."""
        self._expects_body = expects_body
        # raw: tags and payloads need not be UTF-8, so each field decides for itself.
        self._unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=True,
            max_buffer_size=2 * ANSWER_SIZE_MAX,
            max_array_len=ELEMENT_COUNT_MAX,
            max_map_len=ELEMENT_COUNT_MAX,
            max_str_len=ANSWER_SIZE_MAX,
            max_bin_len=ANSWER_SIZE_MAX,
            max_ext_len=0,
        )
        self._received_size = 0
        # Where in all that was received the last complete map ended.
        self._end = 0
        # The header whose body comes next.
        self._header: tuple[int, str] | None = None

    def receive(self, data: bytes) -> Iterator[Answer]:
        """Yield what `data` completes.  Raises AnswerMalformed; nothing more can be read then."""
        self._received_size += len(data)
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull:
            raise AnswerMalformed(f"an answer of more than {ANSWER_SIZE_MAX} bytes") from None
        while (item := self._next()) is not None:
            answer = self._completed(item)
            if answer is not None:
                yield answer

    def _next(self) -> Mapping[bytes, Any] | None:
        """Return the next map; None if it is not complete yet."""
        try:
            item = self._unpacker.unpack()
        except msgpack.OutOfData:
            if self._received_size - self._end > ANSWER_SIZE_MAX:
                raise AnswerMalformed(f"an answer of more than {ANSWER_SIZE_MAX} bytes") from None
            return None
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            raise AnswerMalformed(f"bytes that are no msgpack ({error})") from None
        self._end = self._unpacker.tell()
        if not isinstance(item, dict):
            raise AnswerMalformed(f"a {type(item).__name__} where a map belongs")
        return item

    def _completed(self, item: Mapping[bytes, Any]) -> Answer | None:
        if self._header is not None:
            header, self._header = self._header, None
            return Answer(*header, item)
        seq, raw_error = item.get(b"Seq"), item.get(b"Error")
        if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(raw_error, bytes):
            raise AnswerMalformed("a map without Seq and Error where a header belongs")
        error = text_of(raw_error)
        if self._expects_body(seq, error):
            self._header = (seq, error)
            return None
        return Answer(seq, error, None)


def text_of(raw: object) -> str:
    """Return the text of a field.  Bytes that are not UTF-8 survive: encoded again in the same way they are what they were."""
    if not isinstance(raw, bytes):
        raise AnswerMalformed(f"a {type(raw).__name__} where a text belongs")
    return raw.decode("utf-8", "surrogateescape")
