"""What machines ask a node: its metrics, whether it lives and is ready, and its status, by HTTP on a port of their own.

    http      a small HTTP/1.1 server with limits: bytes -> h11 -> path -> page
    pages     the pages that there are
    metrics   the table of all metrics: what docs/metrics.md is written from
    collector one node -> the values of the table, when it is asked

Invariants
- Nothing on the way of a record knows of this package: what is counted there are plain integers and `measures.Histogram`, which are read
  when somebody asks.  A node that nobody asks pays for nothing else.
- Asking is bounded too: so many connections, so long, and a page is made a few times in a second at most, however often it is asked for.
- No label has a value that a client can choose, other than the names of the topics, of which a fixed number is shown.
- Each node has a registry of its own: three of them fit into one process.
- With certificates everybody is told its health, since probes have none, and who shows one the rest.

Deliberately absent: anything that changes a node; the policy, since a node that does not know it yet is looked at most.
"""
