"""Let nobody campaign that is no voter in the newest configuration of its own log.

pysyncobj campaigns whenever it misses a leader, and a node that knows no others needs nobody's vote: a node that was started empty, to
join later, elects itself, and leads a cluster of its own beside the one that it was meant for.
"""

from __future__ import annotations

from distlog.consensus.configuration import Configuration


class Candidacy:
    """Says who may ask for votes."""

    def may_campaign(self, configuration: Configuration, node_id: str, directory_id: str) -> bool:
        """Tell whether this node votes, under the identity that it has, in the newest configuration of its log."""
        return configuration.voters.get(node_id) == directory_id
