"""How a node that is too far behind for the leader's journal gets the state of its peers: by copying files.

    leader: a follower needs an entry that its journal has forgotten  -> CheckpointNeeded (consensus/held_back.py)
    the follower's CatchUp (catch_up.py)
        Round (copying.py)      checkpoint, lists of segments, segments        <-> Source (source.py) of any peer
            Incoming            staged, synced, checked (storage/incoming.py)
        leftovers.py            removes what was staged and turns out to be of no use
        background.py           the tasks of all of them
        switch.py               the moment at which the copied state counts, and what follows from it

What must hold:

- Nothing of the state that a node lives on is touched before all of the new one is durable and checked; one rename is the moment.
- A checkpoint has only what is committed, from whomever it comes; so it may be another node's than the leader's, and the leader may
  change meanwhile.
- Term and vote survive: what a node has promised does not depend on the state that it has.
- What is staged is of use whatever happens: segments with the same base offset have the same bytes on all nodes.
- A node that copies takes writes of nobody, keeps its vote, and stays quiet, since the leader sends it heartbeats.
- Bytes from a peer are believed when they fit the batch table, and the table when it fits what the peer has listed, and all of it
  together the checkpoint's mark.

Deliberately absent: state of a copy at the node that is copied from, a file that lists what is staged, pushing, compression.
"""
