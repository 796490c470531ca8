"""The gRPC surface of a node: what clients call, and what they are told when it fails.

    listen            binds the address, builds the server, stops it: the only module that serve.py needs
      calls           runs every call: descriptor -> handlers, errors -> statuses, incidents -> log
        gate          whether a call may go on: who calls, what that needs (permissions), and what the policy says
      authorization   the policy and where it comes from, put together; policy_calls: looking at it and changing it
      log_service     Produce, Consume, OffsetForTime, GetServers, OpenProducer; and begins the streams
        produce_stream    one pipelined stream: a reader that proposes, a writer that answers in order; produce_batch: of blocks
        request_stream    the two halves of both; in_flight: what such a stream may have proposed and not answered
        consume_stream    one tail: read what is there, wait for the rest; consume_batch: in batches as they are stored
      cluster_service Status, DescribeTopic, and the calls that look after topics
      health          grpc.health.v1, computed when asked; reflection: what services there are
      open_streams    what a stop has to end, and how many tails there may be
      refusals        a write that was refused at once: who was cut off says so only when it is proven
      records         requests -> blocks, stored batches -> responses
      served_log      the part of ReplicatedLog that is used here, as a protocol
      limits          every limit of this package, in one table

    request -> calls -> service -> ReplicatedLog.propose_append -> future -> response
                 ^                                                |
                 +------ DistlogError (api/status.py: code, ErrorInfo)

Invariants
- Every error that leaves carries an ErrorInfo of domain "distlog"; what is not a known error leaves as INTERNAL with an
  incident id, and the log has the traceback under that id.  A traceback never leaves.
- The order of `propose_append` calls on one stream is the order of its requests; nothing is awaited between reading a
  request and proposing it, other than room under the stream's limits.
- A tail holds at most one read's worth of batches; a slow reader stops its own reads and nobody else's.
- A tail that waits is one future: no timer, no polling, no CPU.
- A call whose client left or whose deadline passed is cancelled by gRPC; a proposal that it made goes on, since it may be
  in an entry already.

- No call is served that permissions.py has no row for, and nothing but the topic's name is looked at before the gate was passed.

Deliberately absent: interceptors and registered methods (each costs every call), forwarding of writes to the leader, and gRPC
retries.
"""
