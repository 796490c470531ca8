"""What an entry must have survived before it is promised to anybody: a setting of each node."""

from __future__ import annotations

from enum import Enum


class Durability(Enum):
    """The value is how an operator writes it."""

    # Its fsync: a power cut leaves it.
    FSYNC = "fsync"
    # Its write into the system's page cache: a kill of the process leaves it.
    OS = "os"
