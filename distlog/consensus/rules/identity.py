"""Count only who is the member, and not who has its name.

A node whose disk was wiped comes back under its name with an empty journal, and votes for a candidate that lacks what the old disk had
acknowledged.  A member is its node id and the random id of its data directory, so votes and acknowledgements count only from that one.
"""

from __future__ import annotations


class Identity:
    """Compares who speaks with who is meant."""

    def is_member(self, *, directory_id: str, known_directory_id: str | None) -> bool:
        """Tell whether a peer with this directory is the member; None: the configuration has no member of its name."""
        return directory_id == known_directory_id
