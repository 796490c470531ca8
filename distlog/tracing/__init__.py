"""Traces: what became of one produce, on every node that had a part in it.

    spans        what the parts of a node and of a client call; NO_TRACER, which records nothing, is what they have unless told otherwise
    recording    the same on the API of OpenTelemetry
    asked        what the standard variables of the environment ask for
    export_queue spans that are over, on their way to who keeps them: bounded, counted, off the event loop
    exporting    the SDK and its exporters, which are the extra `distlog[otel]`

    send TOPIC                     the client, from the call to its answer
      log.v1.Log/Produce           the client, one for each attempt at a node
        log.v1.Log/Produce         the leader, from the request to the answer
          propose                  from when it is taken to when its fate is known
            append                 in the leader's journal, fsynced
            replicate              to one follower, until it acknowledges
              append               on the follower: received, in its journal, fsynced, acknowledged
                apply              there
            apply                  on the leader
          acknowledge              from when it is applied to when its answer has left

Invariants
- Nothing of a trace is in an entry, a journal, a log or a checkpoint, and nothing that is decided depends on one.
- Where nothing is recorded a request costs one `if` at each of these places.
- A span never holds a value, a key or a header of a record, nor the text of an error, which may quote one.
- What is followed has limits: entries at a time, traces of an entry, contexts of a message, spans that wait.  Beyond them is less to see.

Deliberately absent: a global tracer (a node gets its own with its ports), spans of reads, of elections and of copies, and the SDK in
any other module than `exporting` and `export_queue`.
"""
