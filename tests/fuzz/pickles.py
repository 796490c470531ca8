"""Pickles that do something when they are loaded: whoever unpickles one of them makes a directory that a test then finds."""

from __future__ import annotations

import os
import pickle
import zlib
from pathlib import Path


class Harm:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)


def pickles(path: Path) -> list[bytes]:
    """Return pickles that make a directory at `path`, in every protocol and in the dress that pysyncobj sends and stores them in."""
    plain = [pickle.dumps(Harm(path), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    in_messages = [
        pickle.dumps({"type": "append_entries", "term": 1, "serialized": Harm(path)}),
        pickle.dumps(["add", "n9", Harm(path)]),
    ]
    dressed = [bytes([kind]) + plain[2] for kind in range(4)]
    compressed = [zlib.compress(each, 3) for each in (plain[2], in_messages[0])]
    framed = [len(each).to_bytes(4, "little") + each for each in compressed]
    return [*plain, *in_messages, *dressed, *compressed, *framed]
