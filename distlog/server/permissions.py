"""What each call needs: one row for every rpc, and no call is served without one.

Finding the cluster needs nothing, whoever calls: a client must find the leader before that can refuse it, a probe knows no names,
and a node that joins is nobody yet.  None of these calls says anything about topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distlog.security.policy import Action


class On(Enum):
    """What the action of a call is done to."""

    CLUSTER = "the cluster"
    TOPIC = "the topic that the request names"
    EACH_TOPIC = "the topic of each request of the stream"
    SOME_TOPIC = "any topic"
    MEMBER = "the cluster, unless the member that the request names is the caller itself"


@dataclass(frozen=True, slots=True)
class Need:
    """The action that the caller must be allowed, and on what; without an action everybody may call."""

    action: Action | None = None
    on: On = On.CLUSTER

    @property
    def is_administrative(self) -> bool:
        return self.action is Action.ADMINISTER


NOTHING = Need()
DESCRIBE_CLUSTER = Need(Action.DESCRIBE)
ADMINISTER_CLUSTER = Need(Action.ADMINISTER)
CONSUME = Need(Action.CONSUME, On.TOPIC)
DESCRIBE = Need(Action.DESCRIBE, On.TOPIC)
ADMINISTER = Need(Action.ADMINISTER, On.TOPIC)

NEEDS: dict[str, Need] = {
    "log.v1.Log.Produce": Need(Action.PRODUCE, On.TOPIC),
    "log.v1.Log.ProduceStream": Need(Action.PRODUCE, On.EACH_TOPIC),
    "log.v1.Log.ProduceBatch": Need(Action.PRODUCE, On.EACH_TOPIC),
    # A producer belongs to no topic.
    "log.v1.Log.OpenProducer": Need(Action.PRODUCE, On.SOME_TOPIC),
    "log.v1.Log.Consume": CONSUME,
    "log.v1.Log.ConsumeStream": CONSUME,
    "log.v1.Log.ConsumeBatch": CONSUME,
    "log.v1.Log.OffsetForTime": DESCRIBE,
    "log.v1.Log.GetServers": NOTHING,
    # It names every topic.
    "log.v1.Cluster.Status": DESCRIBE_CLUSTER,
    "log.v1.Cluster.ListTopics": DESCRIBE_CLUSTER,
    "log.v1.Cluster.DescribeTopic": DESCRIBE,
    "log.v1.Cluster.CreateTopic": ADMINISTER,
    "log.v1.Cluster.ConfigureTopic": ADMINISTER,
    "log.v1.Cluster.TrimTopic": ADMINISTER,
    "log.v1.Cluster.DeleteTopic": ADMINISTER,
    "log.v1.Cluster.Members": NOTHING,
    "log.v1.Cluster.TransferLeadership": ADMINISTER_CLUSTER,
    "log.v1.Cluster.AddMember": ADMINISTER_CLUSTER,
    # A node that leaves asks the leader to remove it.
    "log.v1.Cluster.RemoveMember": Need(Action.ADMINISTER, On.MEMBER),
    "log.v1.Cluster.SetTarget": ADMINISTER_CLUSTER,
    "log.v1.Cluster.Leave": ADMINISTER_CLUSTER,
    "log.v1.Cluster.GetPolicy": ADMINISTER_CLUSTER,
    "log.v1.Cluster.ChangePolicy": ADMINISTER_CLUSTER,
    "grpc.health.v1.Health.Check": NOTHING,
    "grpc.health.v1.Health.List": NOTHING,
    "grpc.health.v1.Health.Watch": NOTHING,
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": NOTHING,
}
