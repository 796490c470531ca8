"""A file as people have them, made from a seed: mostly words, and everything that a line may hold."""

from __future__ import annotations

from random import Random

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
# Every value of a byte but the line feed, so that a line stays one.
BYTES = bytes(set(range(256)) - {ord("\n")})
LONG_SIZE = 300_000


def word_list(line_count: int, seed: int) -> bytes:
    """Return that many lines, the last one without its line feed, which does not make it another line."""
    random = Random(seed)
    lines = [_line(random, number) for number in range(line_count)]
    lines[line_count // 2] = bytes(random.choices(BYTES, k=LONG_SIZE))
    lines[-1] = b"the end, without a line feed"
    return b"\n".join(lines)


def _line(random: Random, number: int) -> bytes:
    kind = random.randrange(100)
    if kind == 0:
        return b""
    if kind == 1:
        return b"carriage\r returns \r"
    if kind == 2:
        return bytes(random.choices(BYTES, k=random.randrange(1, 100)))
    # The number tells where a difference is.
    return b"%d %s" % (number, bytes(random.choices(LETTERS, k=random.randrange(1, 12))))
