"""How nodes talk to each other: one TCP connection per pair, carrying frames of several channels.

    PeerNetwork (network.py)          start, stop, send, flush, restart_connections, refuse; PeerEvents (events.py)
        Switchboard (switchboard.py)  policy and time: who is welcome, deadlines, what is logged, when to dial again
            Pairing (pairing.py)      which connection of a pair counts, when both nodes dialled
            Dialler (dialling.py)     opens connections, backs off
            Stream (stream.py)        one connection on its asyncio transport; gathers what leaves in one write
                Connection (connection.py)   bytes in, events out
                    handshake.py      who is who: Greeting, Accepted, Refused, Alive
                    frames.py         size, checksum, channel, group, payload

From `Connection` and `Pairing` down nothing knows of asyncio, of time or of a socket; from `Stream` up nothing knows how
bytes become messages.  The network, the clock and the generator of random numbers are ports (`runtime.py`), so that a
simulation runs this very code on virtual time.  docs/format-peer.md has the bytes.

What must hold:

- Nobody speaks before the handshake is over.  Each end has told the other its node id, the random id of its data directory
  and its cluster id, and each has accepted the other; a node with the right name on a wiped disk is nobody.  A refused node
  is told why, in words, and logs it.
- One live connection per pair.  A peer that dials anew replaces the old connection at once, also one that still looks
  healthy; the rules of `pairing.py` make both ends choose the same one.  Nothing of an older or losing connection is
  delivered once it has lost: `peer_disconnected` comes first, and nothing after it.
- What is delivered between `peer_connected` and `peer_disconnected` is the beginning of what the other end sent between
  the same two: in order, without gaps or repetition.  The end of it may be lost: nothing is sent twice.
- `send` only queues.  It never calls back, so it may be called from anywhere, also from an event.
- Everything has a limit (`limits.py`): bytes and time before the handshake is over, strangers, frames, queues, silence.
- Bytes from a peer can close its connection and nothing else.  Names that it sends are compared and logged, nothing more.
- Before the cluster has formed, connections only exchange greetings (`hello_received`); after it, `restart_connections`
  makes everyone greet again, and then `peer_connected` means: same cluster, on both sides.

Deliberately absent: acknowledgements and retries (Raft repeats what matters), ordering between connections, routing through
a third node, discovery of addresses, compression, and threads.  Encryption will wrap the transport, below all this.
"""
