"""Change one member at a time.

Majorities of two configurations that differ by one voter have a voter in common; with two changes under way they need not, and two
leaders each commit what the other never hears of.  pysyncobj means to refuse the second change and never does.  A leader that has not
committed an entry of its own term does not know either whether its newest configuration will stay: its predecessor's may.
"""

from __future__ import annotations


class OneChange:
    """Says whether a leader may propose a change of members now."""

    def admits(self, *, newest_index: int, applied_index: int, is_ready: bool) -> bool:
        """Tell whether the newest configuration, of entry `newest_index`, is settled, and the leader knows it.

        is_ready: this leader has applied an entry of its own term.
        """
        return is_ready and newest_index <= applied_index
