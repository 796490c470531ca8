"""Discovery by Serf: a gossip between agents, which are programs of their own, one beside each node.

    node --RPC on loopback--> its agent <--gossip, UDP and TCP--> the agents of the other nodes

`wire` turns bytes into answers, `values` answers into what they mean, `client` asks; nothing in these three knows distlog.  `agent` has the
process: one that the node starts and watches, or one that somebody else runs.  `tags` is what a node says of itself, `sightings` what the
members of the gossip are to it, and `discovery` the backend.

What must hold:
- The members are read as a level, again and again.  The agent's events only make the next look come sooner: it keeps them back for up to
  three seconds, merges them, repeats them, and drops them when nobody reads.
- A name in the gossip is of one run of a node, NODE_ID.RUN: agents do not let a failed name come back at another address.
- No key is on a command line, in a log, in an error or in a `repr`.
- An agent of one's own ends with its node, however that ends; and no agent can hold up its node, whatever it says or does not say.

What is absent on purpose: event handlers, which run programs; mDNS; the agent's snapshot, which takes an earlier run's own address for
that of another member; and any consequence of what is seen, which is the leader's business.
"""
