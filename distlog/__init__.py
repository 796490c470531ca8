"""distlog: a distributed commit log.

Every node keeps segmented, memory-mapped, append-only logs behind gRPC; Raft puts every append on a majority of disks
before it is acknowledged.  ARCHITECTURE.md has the map of the packages and what must hold between them.
"""

__version__ = "0.1.0"
