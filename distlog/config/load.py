"""Reading the configuration: flags over variables over the file over defaults, with nothing ignored."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from distlog.config.kinds import DiscoveryChoice, show_bytes
from distlog.config.table import ENVIRONMENT_PREFIX, SETTINGS, ServeConfig, Setting
from distlog.discovery.backend import Backend
from distlog.errors import ConfigurationInvalid

# Variables that are no setting of a node: where the client commands find the cluster, how errors are shown, which file.
ENVIRONMENT_OTHERS = ("DISTLOG_SERVER", "DISTLOG_DEBUG", "DISTLOG_CONFIG")
# Kubernetes sets DISTLOG_SERVICE_HOST, DISTLOG_PORT_8400_TCP and their like in every pod beside a service named
# "distlog"; variables of the test suite begin with DISTLOG_TEST_.  Neither is a mistake of the operator.
ENVIRONMENT_IGNORED = re.compile(r"DISTLOG_(SERVICE_(HOST|PORT.*)|PORT(_.*)?|TEST_.*)")

# Bytes of the file: a device would never end.
FILE_SIZE_MAX = 1 << 20


def load(flags: Mapping[str, str], environ: Mapping[str, str]) -> ServeConfig:
    """Return the checked configuration.

    `flags` has the values given on the command line by setting name, and "config" for the file; `environ` is the
    process's environment.  Raises ConfigurationInvalid for anything unknown, malformed or contradictory.
    """
    check_environment(environ)
    path = flags.get("config") or environ.get("DISTLOG_CONFIG")
    in_file = read_file(path) if path else {}
    values: dict[str, Any] = {}
    for row in SETTINGS:
        for source, value in (
            (row.flag, flags.get(row.name)),
            (row.variable, environ.get(row.variable)),
            (f"{row.name} in {path}", in_file.get(row.name)),
        ):
            if value is not None:
                values[row.name] = _read(row, source, value)
                break
    return _check(_derive(values), given=values.keys())


def check_environment(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationInvalid if a DISTLOG_* variable is not known: a typo must not pass for the default."""
    known = [row.variable for row in SETTINGS] + list(ENVIRONMENT_OTHERS)
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known:
            continue
        if not ENVIRONMENT_IGNORED.fullmatch(name):
            raise ConfigurationInvalid(name, f"there is no such variable{nearest(name, known)}")


def read_file(path: str) -> dict[str, Any]:
    """Return the keys of a TOML file, all of which are settings."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
        if len(data) > FILE_SIZE_MAX:
            raise ConfigurationInvalid(path, f"has more than {show_bytes(FILE_SIZE_MAX)}")
        content = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ConfigurationInvalid(path, f"cannot be read as a TOML file: {problem}") from error
    known = [row.name for row in SETTINGS]
    for name in content:
        if name not in known:
            raise ConfigurationInvalid(
                f"{name} in {path}", f"there is no such key{nearest(name, known)}"
            )
    return content


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known name that is most like `name`, or ""."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _read(row: Setting, source: str, value: object) -> Any:
    try:
        return row.read(value)
    except ValueError as error:
        raise ConfigurationInvalid(source, f"{error}, not {value!r}") from error


def _derive(values: Mapping[str, Any]) -> ServeConfig:
    """Fill in the defaults that depend on other settings."""
    config = ServeConfig(**values)
    if "data_dir" not in values:
        config = dataclasses.replace(config, data_dir=f"data/{config.node_id}")
    if "peer_listen" not in values and config.peers and config.node_id in config.peers:
        config = dataclasses.replace(config, peer_listen=config.peers[config.node_id])
    if "acl_replicated" not in values:
        is_default = config.tls_cert is not None and config.acl_policy is None
        config = dataclasses.replace(config, acl_replicated=is_default)
    if "discovery" not in values and config.peers:
        config = dataclasses.replace(config, discovery=DiscoveryChoice(Backend.STATIC))
    return config


def _check(config: ServeConfig, given: Iterable[str]) -> ServeConfig:
    """Raise ConfigurationInvalid for what no single setting shows."""
    if config.peers is not None:
        if "node_id" not in given:
            raise ConfigurationInvalid(
                "--node-id", "is required with --peers: say which of them this is"
            )
        if config.node_id not in config.peers:
            names = ", ".join(config.peers)
            raise ConfigurationInvalid(
                "--peers", f"must contain this node: {config.node_id} is not in {names}"
            )
    _check_beginning(config, given)
    _check_serf(config, given)
    _check_tls(config, given)
    _check_acl(config)
    for flag, address in (
        ("--listen", config.listen),
        ("--peer-listen", config.peer_listen),
        ("--http-listen", config.http_listen),
    ):
        if address is None or address.is_loopback:
            continue
        if not config.insecure and config.tls_cert is None:
            problem = (
                f"{address} is reachable from other machines and nothing is encrypted or authenticated: "
                "give --tls-cert, --tls-key and --tls-ca, listen on 127.0.0.1, or add --insecure if the network is trusted"
            )
            raise ConfigurationInvalid(flag, problem)
    if config.listen.is_wildcard and config.advertise is None:
        problem = f"is required because --listen {config.listen} is no address that a client could connect to"
        raise ConfigurationInvalid("--advertise", problem)
    if config.election_timeout_min_s >= config.election_timeout_max_s:
        problem = f"must be more than --election-timeout-min-s ({config.election_timeout_min_s:g})"
        raise ConfigurationInvalid("--election-timeout-max-s", problem)
    # A follower must be able to miss a heartbeat or two without an election.
    if config.heartbeat_interval_s * 3 > config.election_timeout_min_s:
        problem = f"must be at most a third of --election-timeout-min-s ({config.election_timeout_min_s:g})"
        raise ConfigurationInvalid("--heartbeat-interval-s", problem)
    if config.checkpoint_journal_size > config.journal_size_max:
        problem = f"must be at most --journal-size-max ({show_bytes(config.journal_size_max)})"
        raise ConfigurationInvalid("--checkpoint-journal-size", problem)
    return config


def _check_serf(config: ServeConfig, given: Iterable[str]) -> None:
    """Raise ConfigurationInvalid for what means nothing with this discovery, or tells strangers who the nodes are."""
    own_agent = ["serf_listen", "serf_key_file", "serf_program"]
    is_serf = config.discovery.backend is Backend.SERF
    if not is_serf:
        meaningless = [*own_agent, "serf_join", "serf_rpc_auth_file"]
    else:
        meaningless = own_agent if config.discovery.host else ["serf_rpc_auth_file"]
    for row in SETTINGS:
        if row.name in meaningless and row.name in given:
            raise ConfigurationInvalid(
                row.flag, f"means nothing with --discovery {config.discovery}"
            )
    listen = config.serf_listen
    is_open = is_serf and not listen.is_loopback and config.serf_key_file is None
    if is_open and not config.insecure:
        problem = (
            f"{listen} is reachable from other machines and the gossip is not encrypted: give a --serf-key-file, or add --insecure if the "
            "network is trusted"
        )
        raise ConfigurationInvalid("--serf-listen", problem)
    is_own = is_serf and not config.discovery.host
    if is_own and config.tls_cert is not None and config.serf_key_file is None:
        problem = (
            "is required with --tls-cert: the agents speak by connections of their own, which certificates do not cover; make one with "
            "`serf keygen`, the same for all nodes"
        )
        raise ConfigurationInvalid("--serf-key-file", problem)


def _check_beginning(config: ServeConfig, given: Iterable[str]) -> None:
    """Raise ConfigurationInvalid unless it is clear how this node comes to its cluster."""
    ways = [
        flag
        for flag, is_given in (
            ("--peers", config.peers is not None),
            ("--bootstrap", config.bootstrap),
            ("--join", config.join is not None),
        )
        if is_given
    ]
    if len(ways) > 1:
        problem = "name different ways to come to a cluster: give one of them"
        raise ConfigurationInvalid(" and ".join(ways), problem)
    is_found = config.discovery.backend.finds_strangers and not (config.peers or config.bootstrap)
    joins = config.join is not None or is_found
    if joins and "node_id" not in given:
        flag = "--join" if config.join is not None else f"--discovery {config.discovery}"
        problem = f"is required with {flag}: a name that no member has"
        raise ConfigurationInvalid("--node-id", problem)
    if config.discovery.backend is Backend.STATIC and config.peers is None:
        problem = (
            "static shows the nodes of --peers, and there is no --peers: give that, or take gossip"
        )
        raise ConfigurationInvalid("--discovery", problem)
    if config.expect is not None and not joins:
        problem = "needs --join: where clients reach the nodes that are expected, this one may be among them"
        raise ConfigurationInvalid("--expect", problem)
    if config.peers is not None and config.peer_advertise is not None:
        problem = "means nothing with --peers, which says where each node is reached"
        raise ConfigurationInvalid("--peer-advertise", problem)
    is_nowhere = config.peer_listen.is_wildcard and config.peer_advertise is None
    if is_nowhere and (config.bootstrap or joins):
        problem = f"is required because --peer-listen {config.peer_listen} is no address that a node could connect to"
        raise ConfigurationInvalid("--peer-advertise", problem)


def _check_acl(config: ServeConfig) -> None:
    """Raise ConfigurationInvalid unless there is one place that says who may do what."""
    if config.acl_policy is not None and config.acl_replicated:
        problem = "name two policies, and there is one: leave one of them out"
        raise ConfigurationInvalid("--acl-policy and --acl-replicated", problem)
    if config.acl_model is not None and config.acl_policy is None:
        problem = "is for the policy in a file: give --acl-policy as well"
        raise ConfigurationInvalid("--acl-model", problem)


def _check_tls(config: ServeConfig, given: Iterable[str]) -> None:
    """Raise ConfigurationInvalid unless there is all that TLS needs, or nothing of it."""
    files = {
        "--tls-cert": config.tls_cert,
        "--tls-key": config.tls_key,
        "--tls-ca": config.tls_ca,
    }
    missing = [flag for flag, path in files.items() if path is None]
    named = [name for name in given if name.startswith("tls_")]
    if missing and named:
        problem = f"is required with --{named[0].replace('_', '-')}: a node has a certificate, its key, and authorities to trust"
        raise ConfigurationInvalid(missing[0], problem)
    if named and config.insecure:
        problem = (
            "is for nodes without certificates, and there is a --tls-cert: leave one of them out"
        )
        raise ConfigurationInvalid("--insecure", problem)
    if config.http_open and not named:
        problem = "means nothing without a --tls-cert: everything is answered to everybody then"
        raise ConfigurationInvalid("--http-open", problem)
    if config.tls_peer_name == "any" and config.tls_peer_ca is None:
        problem = (
            "any makes every client a node: give --tls-peer-ca, an authority that signs nodes alone"
        )
        raise ConfigurationInvalid("--tls-peer-name", problem)
