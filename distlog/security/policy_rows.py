"""The lines of a policy file as rows of text, the same for a node and for `distlog acl`.

p, alice, orders-*, produce
# lines that are empty or begin with # are none
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

from distlog.errors import ConfigurationInvalid


def parse_rows(data: bytes, flag: str, path: str) -> list[tuple[int, Sequence[str]]]:
    """Return the rows of a file with the numbers of their lines.  Raises ConfigurationInvalid, which names `flag`."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise ConfigurationInvalid(flag, f"{path} is no UTF-8") from None
    rows: list[tuple[int, Sequence[str]]] = []
    reader = csv.reader(lines, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values) and not values[0].startswith("#"):
                rows.append((reader.line_num, values))
    except csv.Error as error:
        problem = f"{path}, line {reader.line_num}: {error}"
        raise ConfigurationInvalid(flag, problem) from error
    return rows
