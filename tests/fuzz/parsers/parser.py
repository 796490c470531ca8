"""What a fuzzed parser is, and the ways to change an example so that only one field of it is wrong."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

import msgspec

from tests.fuzz.mutations import mutated

# What a parser takes: bytes or text.
Input = TypeVar("Input", bytes, str)
Change = Callable[[Input, Random], Input]

NUMBERS = (
    *(
        0,
        1,
        -1,
        2,
        127,
        128,
        255,
        256,
        65535,
        65536,
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
    ),
    *((1 << 53) - 1, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1),
)
TEXTS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "\x00",
        "n1\x00",
        "\n",
        "\x1b[2J",
    ),
    *(
        "n\u0456",
        "\uff0e\uff0e\uff0f",
        "\u202en1",
        "\ud7ff",
        "\U0001f4a5",
        "٣",
        "²",
        "1_000",
        "0x10",
        "1e400",
        "nan",
        "-0",
        "inf",
    ),
    *(
        "9" * 30,
        "9" * 5000,
        "n" * 64,
        "n" * 300,
        "[::1]:80",
        "::1",
        "h:0",
        "h:65536",
        "%s%n",
        "{field}",
        "${HOME}",
        "$(id)",
        "=",
        ",",
    ),
)
OTHERS = (
    10**400,
    None,
    True,
    False,
    1.5,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    b"",
    b"\xff\xfe",
    b"\x00" * 9,
)
DEPTH = 3000


@dataclass(frozen=True)
class Parser(Generic[Input]):
    """One parser.  What it is given it takes, or refuses by one of `refusals`; nothing else may happen."""

    name: str
    # What it takes as it is.
    examples: Sequence[Input]
    parse: Callable[[Input], object]
    # What it may raise.
    refusals: tuple[type[Exception], ...]
    # Changes one field and puts right whatever guards the whole: sizes, checksums, the encoding around it.
    one_field: Change[Input]
    # Its inputs cost this many times as much as those of a parser of bytes in memory: fewer in a short run.
    cost: int = 1


def any_value(source: Random) -> Any:
    """Return a value that is legal somewhere, and hardly where it is put."""
    return source.choice(source.choice((NUMBERS, TEXTS, OTHERS)))


def any_text(source: Random) -> str:
    if source.random() < 0.7:
        return source.choice(TEXTS)
    if source.random() < 0.5:
        return str(source.choice(NUMBERS))
    return "".join(source.choices(string.printable + "\x00é٣²", k=source.randint(0, 20)))


# --- One field of a tree -------------------------------------------------------------------------


def changed_tree(tree: Any, source: Random) -> Any:
    """Return `tree`, of lists, dicts and leaves, with one value, key or element changed, added or taken out."""
    if isinstance(tree, list) and tree and source.random() < 0.9:
        place = source.randrange(len(tree))
        kind = source.random()
        if kind < 0.1:
            return [*tree[:place], *tree[place + 1 :]]
        if kind < 0.2:
            return [*tree[:place], tree[place], *tree[place:]]
        return [*tree[:place], changed_tree(tree[place], source), *tree[place + 1 :]]
    if isinstance(tree, dict) and tree and source.random() < 0.9:
        key = source.choice(list(tree))
        kind = source.random()
        if kind < 0.1:
            return {each: value for each, value in tree.items() if each != key}
        if kind < 0.2:
            return {**tree, any_text(source): tree[key]}
        return {**tree, key: changed_tree(tree[key], source)}
    if isinstance(tree, bytes) and source.random() < 0.7:
        return mutated(tree, source)
    if isinstance(tree, str) and source.random() < 0.7:
        return any_text(source)
    if isinstance(tree, int) and source.random() < 0.7:
        return source.choice((*NUMBERS, tree + 1, tree - 1))
    return any_value(source)


def msgpack_field(data: bytes, source: Random) -> bytes:
    """Change one value of a msgpack message."""
    if source.random() < 0.01:
        return nested(data, source)
    tree = msgspec.msgpack.decode(data)
    while True:
        try:
            return msgspec.msgpack.encode(changed_tree(tree, source))
        except (OverflowError, UnicodeEncodeError):
            # A number, or a text, that msgpack has no room for.
            continue


def nested(data: bytes, source: Random) -> bytes:
    """Put something that nests deeper than anybody recurses into the message, or around it."""
    opening = source.choice((b"\x91", b"\x81\xa1x"))
    deep = opening * source.choice((50, DEPTH, 40 * DEPTH)) + b"\xc0"
    head = data[0]
    if 0x80 <= head < 0x8F:
        return bytes([head + 1]) + data[1:] + b"\xa4more" + deep
    if 0x90 <= head < 0x9F:
        return bytes([head + 1]) + data[1:] + deep
    return deep


def json_field(data: bytes, source: Random) -> bytes:
    """Change one value of a JSON text."""
    if source.random() < 0.01:
        return source.choice((b"[", b'{"a":')) * 100_000
    if source.random() < 0.02:
        return data.replace(b'"', b"", 2).replace(b"null", b"9" * 5000, 1)
    tree = json.loads(data)
    while True:
        try:
            return json.dumps(changed_tree(tree, source)).encode()
        except TypeError:
            # Bytes are nothing that JSON can say.
            continue


def text_field(separators: str) -> Change[str]:
    """Change what stands between two separators, or one of those."""

    def change(text: str, source: Random) -> str:
        parts: list[str] = [""]
        for character in text:
            if character in separators:
                parts += [character, ""]
            else:
                parts[-1] += character
        place = source.randrange(len(parts))
        if source.random() < 0.7:
            parts[place] = any_text(source)
        elif source.random() < 0.5:
            parts.insert(place, parts[place])
        else:
            del parts[place]
        return "".join(parts)

    return change


def mutated_text(text: str, source: Random) -> str:
    """Return a text with a few characters changed, or whatever its bytes become."""
    if source.random() < 0.5:
        return mutated(text.encode(), source).decode("utf-8", "surrogateescape")
    characters = list(text)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(characters) + 1)
        characters[place : place + source.randint(0, 3)] = list(any_text(source)[:40])
    return "".join(characters)


# --- One field of bytes --------------------------------------------------------------------------


def sealed(seal: Callable[[bytes], bytes], start: int = 0) -> Change[bytes]:
    """Change bytes from `start` on, and have `seal` put sizes and checksums right."""

    def change(data: bytes, source: Random) -> bytes:
        return seal(data[:start] + changed_bytes(data[start:], source))

    return change


def changed_bytes(data: bytes, source: Random) -> bytes:
    """Return `data` with one number of 1, 2, 4 or 8 bytes changed, or mutated anyhow."""
    if source.random() < 0.3 or not data:
        return mutated(data, source)
    size = source.choice((1, 2, 4, 8))
    place = source.randrange(len(data))
    number = source.choice((*NUMBERS, int.from_bytes(data[place : place + size], "little") + 1))
    field = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return data[:place] + field[: len(data) - place] + data[place + size :]
