"""The table: every setting of a node, once, with its kind, default, limits and help."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distlog.config.kinds import (
    ADDRESS,
    ADDRESS_OR_NONE,
    ADDRESSES,
    BYTES,
    DISCOVERY,
    FILE,
    GIB,
    KIB,
    LOG_LEVELS,
    MIB,
    NAMES,
    NODE,
    NUMBER,
    PATH,
    PEER_NAME_KIND,
    PEERS,
    PROGRAM,
    SECONDS,
    SWITCH,
    VOTER_COUNT_MAX,
    Address,
    DiscoveryChoice,
    Kind,
    LogLevels,
    one_of,
)
from distlog.discovery.backend import Backend

ENVIRONMENT_PREFIX = "DISTLOG_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.  `minimum` and `maximum` are inclusive."""

    name: str
    kind: Kind
    default: Any
    # How the default is derived when it depends on other settings; shown instead of it.
    derived: str
    help: str
    minimum: float | None
    maximum: float | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        return self.derived or self.kind.show(self.default)

    def read(self, value: object) -> Any:
        """Return `value` as the setting's type.  Raises ValueError, which says what is acceptable."""
        parsed = self.kind.read(value)
        if (self.minimum is not None and parsed < self.minimum) or (
            self.maximum is not None and parsed > self.maximum
        ):
            raise ValueError(f"must be {self.limits_text()}")
        return parsed

    def limits_text(self) -> str:
        """Return the limits in words, "" if there is none."""
        if self.minimum is None or self.maximum is None:
            return ""
        return f"from {self.kind.show(self.minimum)} to {self.kind.show(self.maximum)}"


def setting(
    kind: Kind,
    default: Any,
    help: str,
    *,
    derived: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a field of ServeConfig that is also a row of the table."""
    row = {"kind": kind, "derived": derived, "help": help, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=row)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `distlog serve` runs with.  `load` makes a checked one; a test may make one directly."""

    node_id: str = setting(
        NODE, "n1", "name of this node; required with --peers and --join", derived="n1"
    )
    data_dir: str = setting(
        PATH, "data/n1", "directory that holds everything the node keeps", derived="data/NODE_ID"
    )
    listen: Address = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS, Address("127.0.0.1", 8400), "where clients connect; port 0 lets the system choose"
    )
    peer_listen: Address = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS,
        Address("127.0.0.1", 8401),
        "where the other nodes connect",
        derived="this node's own entry in --peers, or 127.0.0.1:8401",
    )
    http_listen: Address | None = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS_OR_NONE,
        Address("127.0.0.1", 8404),
        "where it answers /livez, /readyz, /metrics and /status by HTTP; none: nowhere",
    )
    http_open: bool = setting(
        SWITCH,
        False,
        "with --tls-cert: answer /metrics and /status also to who shows no certificate, as /livez and /readyz are in any case",
    )
    advertise: Address | None = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS, None, "the address that clients are told to connect to", derived="--listen"
    )
    peers: Mapping[str, Address] | None = setting(
        PEERS,
        None,
        "the fixed set of nodes, this one included; the same on all of them",
        derived="none: a cluster of one",
    )
    bootstrap: bool = setting(
        SWITCH,
        False,
        "begin a cluster of one that other nodes may join; means nothing once the node belongs to a cluster",
    )
    join: tuple[Address, ...] | None = setting(
        ADDRESSES,
        None,
        "become a member of the cluster of which clients reach a member there, and never begin one; means nothing once the node belongs "
        "to a cluster",
        derived="none",
    )
    peer_advertise: Address | None = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS,
        None,
        "the address at which the other members reach this node; not with --peers",
        derived="--peer-listen",
    )
    expect: int | None = setting(
        NUMBER,
        None,
        "with --join, the same on all of them: form a cluster of so many nodes, once, if there is none to join; further ones join it. It "
        "is also how many voters the cluster is meant to have. Means nothing once the node belongs to a cluster",
        derived="none: join only",
        minimum=2,
        maximum=VOTER_COUNT_MAX,
    )
    dead_after_s: float = setting(
        SECONDS,
        600.0,
        "so long a voter must have failed before a learner takes its place; the same on every node",
        minimum=1,
        maximum=30 * 86400,
    )
    leave_on_stop: bool = setting(
        SWITCH,
        False,
        "a stop is for good: have the node removed from the cluster first, so that its directory never comes back",
    )
    discovery: DiscoveryChoice = setting(  # noqa: RUF009 (its values are immutable)
        DISCOVERY,
        DiscoveryChoice(Backend.GOSSIP),
        "how the nodes find each other: gossip: members tell each other, over the connections they have; static: who is in --peers; dns: "
        "those that the addresses of a name lead to, PORT being that for clients; serf: those that a Serf agent knows. Where dns or serf "
        "finds a member, no --join is needed",
        derived="static with --peers, otherwise gossip",
    )
    serf_listen: Address = setting(  # noqa: RUF009 (its values are immutable)
        ADDRESS,
        Address("127.0.0.1", 7946),
        "with --discovery serf: where the Serf agents of the other nodes reach that of this one; port 0 lets the system choose",
    )
    serf_join: tuple[Address, ...] | None = setting(
        ADDRESSES,
        None,
        "with Serf: where some other agents are, as their --serf-listen says; this node's own may be among them, so that all nodes can "
        "have the same",
        derived="none",
    )
    serf_key_file: str | None = setting(
        FILE,
        None,
        "with --discovery serf: a file that only its owner may read, with 32 bytes in base64: the key by which the agents encrypt what "
        "they tell each other, the same on all nodes",
        derived="none: nothing is encrypted",
    )
    serf_program: str = setting(
        PROGRAM, "serf", "with --discovery serf: the program, by its path or by a name along PATH"
    )
    serf_rpc_auth_file: str | None = setting(
        FILE,
        None,
        "with --discovery serf://HOST:PORT: a file that only its owner may read, with the rpc_auth of that agent",
        derived="none",
    )
    insecure: bool = setting(
        SWITCH,
        False,
        "listen beyond loopback although nothing is encrypted or authenticated; not with --tls-cert",
    )
    tls_cert: str | None = setting(
        FILE,
        None,
        "this node's certificate in PEM, after it those between it and its authority; with --tls-key and --tls-ca everything is "
        "encrypted, and whoever connects must show a certificate. All are read again when they change",
        derived="none: no encryption",
    )
    tls_key: str | None = setting(
        FILE, None, "the key of --tls-cert in PEM, readable by this user alone", derived="none"
    )
    tls_ca: str | None = setting(
        FILE,
        None,
        "certificates in PEM of the authorities that sign clients, and nodes unless there is a --tls-peer-ca",
        derived="none",
    )
    tls_peer_ca: str | None = setting(
        FILE, None, "those of the authorities that sign nodes and nobody else", derived="--tls-ca"
    )
    tls_peer_name: str = setting(
        PEER_NAME_KIND,
        "URI:distlog://node/{node}",
        "what a certificate must name for its holder to be a node, {node} being its id: URI:NAME, DNS:NAME, EMAIL:NAME, OU:NAME or "
        "CN:NAME; any: nothing, which needs --tls-peer-ca",
    )
    record_size_max: int = setting(
        BYTES, MIB, "largest record; the same on every node", minimum=1, maximum=32 * MIB
    )
    election_timeout_min_s: float = setting(
        SECONDS, 0.6, "silence of the leader before an election, at least", minimum=0.05, maximum=60
    )
    election_timeout_max_s: float = setting(
        SECONDS, 1.2, "silence of the leader before an election, at most", minimum=0.1, maximum=120
    )
    heartbeat_interval_s: float = setting(
        SECONDS, 0.15, "pause between the leader's signs of life", minimum=0.005, maximum=10
    )
    journal_size_max: int = setting(
        BYTES,
        256 * MIB,
        "journal kept for nodes that are behind; who needs more than that copies a checkpoint and segments",
        minimum=MIB,
        maximum=1024 * GIB,
    )
    checkpoint_interval_s: float = setting(
        SECONDS,
        60.0,
        "longest time between checkpoints while there are writes",
        minimum=0.1,
        maximum=86400,
    )
    checkpoint_journal_size: int = setting(
        BYTES,
        64 * MIB,
        "journal written since the last checkpoint that calls for a new one",
        minimum=64 * KIB,
        maximum=1024 * GIB,
    )
    durability: str = setting(
        one_of("fsync", "os"),
        "fsync",
        "when this node acknowledges an entry: fsync: when it has synced it; os: when it has written it, so that a kill "
        "loses nothing, and a power cut up to a second",
    )
    disk_reserve_size: int | None = setting(
        BYTES,
        None,
        "space given up piece by piece when the disk is full, so that what was promised can be kept",
        derived="64 MiB, or what the largest record needs",
        minimum=MIB,
        maximum=1024 * GIB,
    )
    retention_interval_s: float = setting(
        SECONDS,
        10.0,
        "pause between looks at what topics need not keep any more",
        minimum=0.1,
        maximum=86400,
    )
    copy_rate_max: int = setting(
        BYTES,
        64 * MIB,
        "bytes in a second that nodes which are behind may copy from this one; 0: as fast as it goes",
        minimum=0,
        maximum=1024 * GIB,
    )
    scrub_interval_s: float = setting(
        SECONDS,
        86400.0,
        "pause between two readings of all segments to find what the disk has changed; 0: never",
        minimum=0,
        maximum=10 * 86400,
    )
    scrub_rate_max: int = setting(
        BYTES,
        8 * MIB,
        "bytes in a second that such a reading takes",
        minimum=64 * KIB,
        maximum=1024 * GIB,
    )
    acl_policy: str | None = setting(
        FILE,
        None,
        "who may do what, as a file that is the same on all nodes; it is read again when it changes",
        derived="none: what `distlog acl` has made the cluster agree on",
    )
    acl_model: str | None = setting(
        FILE,
        None,
        "a Casbin model for --acl-policy",
        derived="none: subjects, roles, patterns of topics",
    )
    acl_replicated: bool = setting(
        SWITCH,
        False,
        "allow nothing before this node has learnt from the leader what the cluster has agreed on about who may do what",
        derived="true with --tls-cert and without --acl-policy, otherwise false",
    )
    acl_administrators: tuple[str, ...] = setting(
        NAMES,
        (),
        "subjects that may do everything on this node whatever the policy says: the way back for who has locked themselves out",
        derived="none",
    )
    audit_log: str | None = setting(
        FILE,
        None,
        "denied and administrative calls, a line of JSON each",
        derived="audit.log in --data-dir",
    )
    audit_size_max: int = setting(
        BYTES,
        16 * MIB,
        "bytes of such a file before the next one is begun",
        minimum=64 * KIB,
        maximum=GIB,
    )
    audit_count_max: int = setting(
        NUMBER, 8, "such files that are kept, the last one included", minimum=1, maximum=1000
    )
    log_level: LogLevels = setting(  # noqa: RUF009 (its values are immutable)
        LOG_LEVELS,
        LogLevels(),
        "least severity that is logged: debug, info, warning or error; of single packages as in info,distlog.peer=debug",
    )
    log_format: str = setting(
        one_of("auto", "text", "json"),
        "auto",
        "one line of text or JSON per event; auto: text on a terminal, JSON elsewhere",
    )


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(name=field.name, default=field.default, **field.metadata)
    for field in dataclasses.fields(ServeConfig)
)
