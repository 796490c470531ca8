"""The client of a cluster: finds the leader, repeats what is safe to repeat, and says what became of every record.

    async with Client("127.0.0.1:8400,127.0.0.1:8410,127.0.0.1:8420") as client:
        offset = await client.produce(b"one record")
        async with await client.open_producer() as producer:      # many: in batches, pipelined, in order
            acknowledgement = await producer.produce(b"another")  # a future of its offset
        async with client.consume(start=offset) as records:
            async for record in records: ...

    Client -> UnaryProducer --+
           -> Producer -- Window (what is not acknowledged, in blocks; no I/O)
           |      +------ ProduceStream (one ProduceBatch call)
           -> Topics (create, configure, trim, delete; the policy)
           -> Consumer -- BatchStream (one ConsumeBatch call, read ahead)
                  +-----------+--> Routing (which node) -> generated stubs
                              attempts (what a failure means, when to try again)

Invariants
- A record is in the log at most once, and those of one producer are there in the order in which they were produced, however
  often a node dies or a stream breaks.  The cluster tells a repeat by producer id, epoch and sequence; here it only has to
  hold that a sequence is given once, and never to other bytes: a block that was cut is never cut again.  gRPC's own retries
  are off.
- An error says what became of the record: OutcomeUnknown means that it may be in the log, any other that it is not.
- What a Producer acknowledged is always a prefix of what it was given, and it stops for good at the first record that it
  cannot deliver: nothing behind a missing record is written.
- A Consumer hands out every offset once, without a gap, or raises.
- Memory is bounded: a producer holds 32 MiB and then lets its caller wait; a consumer holds one batch, and 4 MiB that it has
  read ahead.

Deliberately absent: forwarding, a choice of partition, background refreshes, and any state on disk.  A program that restarts
opens its producer again by its id, which stops the older instance, and reads the log to see where it was.
"""

from distlog.client.batches import Batch
from distlog.client.client import Client
from distlog.client.consumer import Consumer
from distlog.client.producer import Producer
from distlog.client.values import (
    Headers,
    Member,
    Membership,
    NewRecord,
    NodeStatus,
    PlannedChange,
    PolicyChange,
    Record,
    Rule,
    SeenNode,
    Server,
    TimePosition,
    TopicRange,
)

__all__ = [
    "Batch",
    "Client",
    "Consumer",
    "Headers",
    "Member",
    "Membership",
    "NewRecord",
    "NodeStatus",
    "PlannedChange",
    "PolicyChange",
    "Producer",
    "Record",
    "Rule",
    "SeenNode",
    "Server",
    "TimePosition",
    "TopicRange",
]
