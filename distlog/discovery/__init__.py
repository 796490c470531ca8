"""Discovery: which nodes there are, where they are reached, and whether they seem to be alive.

    gossip | static | serf | dns  ->  members() : a view of the nodes        what a node says of itself -> announce()

A view is a *level*, not a stream of events: whoever needs it reads the whole of it, and `changed` only says that a look may be worth
it.  It proposes, and decides nothing: who belongs to the cluster stands in the configuration, which only the leader changes
(`distlog/consensus/membership.py`), and a node that seems dead here may well be a voter that answers in time.

`view.py` has the values and what every backend does; each backend is a module, and `tests/discovery` holds all of them against one
suite.  Nothing here knows Raft, files or gRPC.
"""
