"""The configuration: three sources, one table, nothing ignored, and errors that name the key and the remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.config import SETTINGS, Address, ServeConfig, Setting, load, nearest, parse_address
from distlog.config.kinds import MIB, DiscoveryChoice, LogLevels, parse_bytes, show_bytes
from distlog.errors import ConfigurationInvalid

PEERS = "n1=127.0.0.1:8401,n2=127.0.0.1:8411,n3=127.0.0.1:8421"
# For each setting: an acceptable text that is not the default, and the value that it means.
SAMPLES: dict[str, tuple[str, object]] = {
    "node_id": ("n2", "n2"),
    "data_dir": ("/srv/distlog", "/srv/distlog"),
    "listen": ("127.0.0.2:0", Address("127.0.0.2", 0)),
    "peer_listen": ("[::1]:9000", Address("::1", 9000)),
    "http_listen": ("none", None),
    "http_open": ("true", True),
    "advertise": ("n2.example:8410", Address("n2.example", 8410)),
    "peers": ("n2=127.0.0.1:1, n1=h:2", {"n2": Address("127.0.0.1", 1), "n1": Address("h", 2)}),
    "bootstrap": ("true", True),
    "join": ("h1:8400, [::1]:8410", (Address("h1", 8400), Address("::1", 8410))),
    "peer_advertise": ("n2.example:8411", Address("n2.example", 8411)),
    "expect": ("3", 3),
    "dead_after_s": ("60", 60.0),
    "leave_on_stop": ("true", True),
    "discovery": ("dns://nodes.example:8400", DiscoveryChoice("dns", "nodes.example", 8400)),
    "serf_listen": ("127.0.0.2:0", Address("127.0.0.2", 0)),
    "serf_join": ("h1:7946", (Address("h1", 7946),)),
    "serf_key_file": ("/etc/key", "/etc/key"),
    "serf_program": ("/opt/serf", "/opt/serf"),
    "serf_rpc_auth_file": ("/etc/auth", "/etc/auth"),
    "insecure": ("true", True),
    "tls_cert": ("n2.pem", "n2.pem"),
    "tls_key": ("n2.key", "n2.key"),
    "tls_ca": ("ca.pem", "ca.pem"),
    "tls_peer_ca": ("nodes.pem", "nodes.pem"),
    "tls_peer_name": ("DNS:{node}.example", "DNS:{node}.example"),
    "record_size_max": ("2MiB", 2 * MIB),
    "election_timeout_min_s": ("0.5", 0.5),
    "election_timeout_max_s": ("2", 2.0),
    "heartbeat_interval_s": ("0.1", 0.1),
    "journal_size_max": ("512 MiB", 512 * MIB),
    "checkpoint_interval_s": ("5", 5.0),
    "checkpoint_journal_size": ("1MiB", MIB),
    "durability": ("os", "os"),
    "disk_reserve_size": ("128MiB", 128 * MIB),
    "retention_interval_s": ("2.5", 2.5),
    "copy_rate_max": ("10MiB", 10 * MIB),
    "scrub_interval_s": ("3600", 3600.0),
    "scrub_rate_max": ("1MiB", MIB),
    "acl_policy": ("/etc/policy.csv", "/etc/policy.csv"),
    "acl_model": ("/etc/model.conf", "/etc/model.conf"),
    "acl_replicated": ("true", True),
    "acl_administrators": ("root, admin@example.com", ("root", "admin@example.com")),
    "audit_log": ("/var/log/audit.log", "/var/log/audit.log"),
    "audit_size_max": ("1MiB", 1 << 20),
    "audit_count_max": ("3", 3),
    "log_level": (
        "warning,distlog.peer=debug",
        LogLevels("warning", (("distlog.peer", "debug"),)),
    ),
    "log_format": ("json", "json"),
}
# What else must be said for a sample to be acceptable.
SERF = {"DISTLOG_NODE_ID": "n2", "DISTLOG_DISCOVERY": "serf"}
BESIDE = {
    **{name: {"DISTLOG_NODE_ID": "n2"} for name in ("peers", "join", "discovery")},
    **dict.fromkeys(("serf_listen", "serf_join", "serf_key_file", "serf_program"), SERF),
    "serf_rpc_auth_file": {**SERF, "DISTLOG_DISCOVERY": "serf://h:7373"},
    "expect": {"DISTLOG_NODE_ID": "n2", "DISTLOG_JOIN": "h:1"},
    "acl_model": {"DISTLOG_ACL_POLICY": "p.csv"},
}
TLS = {f"DISTLOG_TLS_{name}": "a.pem" for name in ("CERT", "KEY", "CA")}
for name in ("tls_cert", "tls_key", "tls_ca", "tls_peer_ca", "tls_peer_name"):
    BESIDE[name] = {key: value for key, value in TLS.items() if key != f"DISTLOG_{name.upper()}"}
BESIDE["http_open"] = TLS
rows = pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)


def test_the_defaults_are_a_cluster_of_one_on_loopback() -> None:
    config = load({}, {})
    assert config == ServeConfig()
    assert config.peers is None
    assert config.listen.is_loopback
    assert config.peer_listen.is_loopback


def test_every_setting_has_a_sample() -> None:
    assert list(SAMPLES) == [row.name for row in SETTINGS]
    assert [row.name for row in SETTINGS] == [
        field.name for field in dataclasses.fields(ServeConfig)
    ]


@rows
def test_a_flag_is_read(row: Setting) -> None:
    text, value = SAMPLES[row.name]
    assert getattr(load({row.name: text}, BESIDE.get(row.name, {})), row.name) == value
    assert value != row.default


@rows
def test_a_variable_is_read(row: Setting) -> None:
    text, value = SAMPLES[row.name]
    environ = {row.variable: text, **BESIDE.get(row.name, {})}
    assert getattr(load({}, environ), row.name) == value


@rows
def test_a_key_of_the_file_is_read(row: Setting, tmp_path: Path) -> None:
    text, value = SAMPLES[row.name]
    path = write(tmp_path, f'{row.name} = "{text}"')
    assert getattr(load({"config": path}, BESIDE.get(row.name, {})), row.name) == value


def test_the_file_has_the_types_of_toml(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'node_id = "n1"\ninsecure = true\nrecord_size_max = 4096\ncheckpoint_interval_s = 5\n'
        'heartbeat_interval_s = 0.1\n[peers]\nn1 = "a:1"\nn2 = "b:2"',
    )
    config = load({}, {"DISTLOG_CONFIG": path})
    assert config.insecure is True
    assert config.record_size_max == 4096
    assert config.checkpoint_interval_s == 5.0
    assert config.heartbeat_interval_s == 0.1
    assert config.peers == {"n1": Address("a", 1), "n2": Address("b", 2)}


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'log_level = "error"\nlog_format = "json"\nnode_id = "file"')
    environ = {"DISTLOG_LOG_LEVEL": "warning", "DISTLOG_LOG_FORMAT": "text"}
    config = load({"config": path, "log_level": "debug"}, environ)
    assert (str(config.log_level), config.log_format, config.node_id) == ("debug", "text", "file")


# --- Defaults that depend on others ---


def test_the_data_directory_is_named_after_the_node() -> None:
    assert load({"node_id": "n7"}, {}).data_dir == "data/n7"


def test_a_node_listens_for_peers_where_the_peers_expect_it() -> None:
    assert load({"node_id": "n2", "peers": PEERS}, {}).peer_listen == Address("127.0.0.1", 8411)
    given = load({"node_id": "n2", "peers": PEERS, "peer_listen": "127.0.0.1:99"}, {})
    assert given.peer_listen == Address("127.0.0.1", 99)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "gossip"),
        ({"node_id": "n2", "peers": PEERS}, "static"),
        ({"node_id": "n2", "peers": PEERS, "discovery": "gossip"}, "gossip"),
        ({"node_id": "n2", "discovery": "serf"}, "serf"),
        ({"node_id": "n2", "discovery": "serf://[::1]:7373"}, "serf://[::1]:7373"),
        ({"discovery": "dns://h:1", "bootstrap": "true"}, "dns://h:1"),
    ],
)
def test_a_fixed_set_is_its_own_discovery_and_other_nodes_tell_each_other(
    flags: dict[str, str], expected: str
) -> None:
    assert str(load(flags, {}).discovery) == expected


# --- What is refused, and in which words ---


@pytest.mark.parametrize(
    ("flags", "environ", "file", "key", "problem"),
    [
        # One way to come to a cluster.
        ({"peers": PEERS, "join": "h:1", "node_id": "n1"}, {}, "", "--peers and --join", "one of"),
        ({"bootstrap": "true", "join": "h:1"}, {}, "", "--bootstrap and --join", "one of"),
        ({"join": "h:1"}, {}, "", "--node-id", "required with --join"),
        ({"expect": "3"}, {}, "", "--expect", "needs --join"),
        ({"expect": "three"}, {}, "", "--expect", "whole number"),
        ({"expect": "1"}, {}, "", "--expect", "from 2 to 15"),
        ({"discovery": "serf"}, {}, "", "--node-id", "required with --discovery serf"),
        ({"discovery": "dns://h:1"}, {}, "", "--node-id", "required with --discovery dns://h:1"),
        ({"discovery": "static"}, {}, "", "--discovery", "there is no --peers"),
        ({"discovery": "dns"}, {}, "", "--discovery", "dns://NAME:PORT"),
        ({"discovery": "dns://h:0"}, {}, "", "--discovery", "dns://NAME:PORT"),
        ({"discovery": "gossip://h:1"}, {}, "", "--discovery", "must be gossip"),
        ({"discovery": "serf://h"}, {}, "", "--discovery", "HOST:PORT"),
        # Settings of an agent that there is not.
        ({"serf_join": "h:1"}, {}, "", "--serf-join", "nothing with --discovery gossip"),
        ({"serf_program": "x"}, {}, "", "--serf-program", "nothing with --discovery gossip"),
        ({"serf_rpc_auth_file": "x"}, SERF, "", "--serf-rpc-auth-file", "with --discovery serf"),
        (
            {"serf_key_file": "x", "discovery": "serf://h:7373", "node_id": "n1"},
            {},
            "",
            "--serf-key-file",
            "nothing with --discovery serf://h:7373",
        ),
        ({"serf_listen": "10.0.0.1:7946"}, SERF, "", "--serf-listen", "give a --serf-key-file"),
        ({"join": "h:0", "node_id": "n4"}, {}, "", "--join", "HOST:PORT"),
        ({"join": "h", "node_id": "n4"}, {}, "", "--join", "HOST:PORT"),
        ({"join": ",", "node_id": "n4"}, {}, "", "--join", "1 to 15"),
        (
            {"peers": PEERS, "node_id": "n1", "peer_advertise": "h:1"},
            {},
            "",
            "--peer-advertise",
            "nothing with --peers",
        ),
        (
            {"bootstrap": "true", "peer_listen": "0.0.0.0:8401", "insecure": "true"},
            {},
            "",
            "--peer-advertise",
            "is required",
        ),
        # Nothing unknown is ignored.
        ({}, {"DISTLOG_DATADIR": "x"}, "", "DISTLOG_DATADIR", "did you mean DISTLOG_DATA_DIR?"),
        ({}, {"DISTLOG_ZZZZ": "x"}, "", "DISTLOG_ZZZZ", "no such variable"),
        ({}, {}, "liste = 1", "liste in FILE", "did you mean listen?"),
        ({}, {}, "[tls]\ncert = 1", "tls in FILE", "no such key"),
        # The key is named as the operator wrote it.
        ({"listen": "8400"}, {}, "", "--listen", "must be HOST:PORT"),
        ({}, {"DISTLOG_LISTEN": "a:b"}, "", "DISTLOG_LISTEN", "must be HOST:PORT"),
        ({}, {"DISTLOG_LISTEN": ""}, "", "DISTLOG_LISTEN", "not ''"),
        ({}, {}, "listen = 8400", "listen in FILE", "not 8400"),
        ({"listen": "127.0.0.1:65536"}, {}, "", "--listen", "must be HOST:PORT"),
        ({"listen": "::1:8400"}, {}, "", "--listen", "brackets"),
        ({"node_id": "a b"}, {}, "", "--node-id", "1 to 63 of"),
        ({"data_dir": ""}, {}, "", "--data-dir", "not empty"),
        ({"record_size_max": "33MiB"}, {}, "", "--record-size-max", "from 1 to 32MiB"),
        ({"record_size_max": "0"}, {}, "", "--record-size-max", "from 1 to 32MiB"),
        ({"record_size_max": "1MB"}, {}, "", "--record-size-max", "KiB, MiB or GiB"),
        ({}, {}, "record_size_max = true", "record_size_max in FILE", "number of bytes"),
        ({"heartbeat_interval_s": "nan"}, {}, "", "--heartbeat-interval-s", "number of seconds"),
        ({}, {}, "heartbeat_interval_s = true", "heartbeat_interval_s in FILE", "seconds"),
        ({"checkpoint_interval_s": "0"}, {}, "", "--checkpoint-interval-s", "from 0.1 to 86400"),
        ({"insecure": "yes"}, {}, "", "--insecure", "true or false"),
        ({"log_level": "info,distlog.peer"}, {}, "", "--log-level", "with single packages"),
        ({"log_level": "pysyncobj=info"}, {}, "", "--log-level", "with single packages"),
        ({"http_listen": "10.0.0.1:1"}, {}, "", "--http-listen", "add --insecure"),
        ({"log_level": "loud"}, {}, "", "--log-level", "one of debug, info, warning, error"),
        # Peers.
        ({"node_id": "n1", "peers": "n1"}, {}, "", "--peers", "no '='"),
        ({"node_id": "n1", "peers": "n1=h:1,n1=h:2"}, {}, "", "--peers", "n1 twice"),
        ({"node_id": "n1", "peers": "n1=h:1,n2=h:1"}, {}, "", "--peers", "same address"),
        ({"node_id": "n1", "peers": ","}, {}, "", "--peers", "must name 1 to"),
        ({"node_id": "n9", "peers": PEERS}, {}, "", "--peers", "n9 is not in n1, n2, n3"),
        ({"peers": PEERS}, {}, "", "--node-id", "required with --peers"),
        # What no single setting shows.
        ({"listen": "10.0.0.1:1"}, {}, "", "--listen", "add --insecure"),
        ({"peer_listen": "node.example:1"}, {}, "", "--peer-listen", "add --insecure"),
        ({"listen": "0.0.0.0:1", "insecure": "true"}, {}, "", "--advertise", "is required"),
        ({"election_timeout_max_s": "0.6"}, {}, "", "--election-timeout-max-s", "more than"),
        ({"heartbeat_interval_s": "0.2"}, {}, "", "--heartbeat-interval-s", "a third of"),
        ({"journal_size_max": "1MiB"}, {}, "", "--checkpoint-journal-size", "at most"),
    ],
)
def test_what_is_not_acceptable_is_named_with_its_problem(
    flags: dict[str, str],
    environ: dict[str, str],
    file: str,
    key: str,
    problem: str,
    tmp_path: Path,
) -> None:
    path = write(tmp_path, file)
    with pytest.raises(ConfigurationInvalid) as caught:
        load({"config": path, **flags}, environ)
    assert caught.value.key == key.replace("FILE", path)
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    "content", [b"listen = ", b"\xff\xfe", None], ids=["syntax", "bytes", "absent"]
)
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "distlog.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationInvalid) as caught:
        load({"config": str(path)}, {})
    assert caught.value.key == str(path)
    assert "cannot be read as a TOML file" in caught.value.problem


def test_variables_that_others_set_are_no_mistakes() -> None:
    environ = {
        "DISTLOG_SERVER": "127.0.0.1:1",
        "DISTLOG_DEBUG": "1",
        "DISTLOG_SERVICE_HOST": "10.0.0.1",
        "DISTLOG_PORT_8400_TCP_ADDR": "10.0.0.1",
        "DISTLOG_TEST_ANYTHING": "1",
        "HOME": "/",
    }
    assert load({}, environ) == ServeConfig()


def test_insecure_allows_other_interfaces() -> None:
    config = load({"listen": "0.0.0.0:1", "insecure": "true", "advertise": "n1.example:1"}, {})
    assert config.advertise == Address("n1.example", 1)


# --- Kinds ---


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("localhost:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("host:1", False),
        ("0.0.0.0:1", False),
    ],
)
def test_loopback_is_recognised(text: str, is_loopback: bool) -> None:
    assert parse_address(text).is_loopback is is_loopback
    assert str(parse_address(text)) == text


@given(st.integers(min_value=0, max_value=1 << 45))
def test_bytes_are_shown_as_they_are_read(size: int) -> None:
    assert parse_bytes(show_bytes(size)) == size


@rows
def test_every_default_is_within_its_own_limits(row: Setting) -> None:
    if not row.derived:
        assert row.read(row.kind.show(row.default)) == row.default


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert nearest("--zzz", ["--listen"]) == ""
    assert nearest("--lisen", ["--listen", "--peers"]) == "; did you mean --listen?"


def write(directory: Path, content: str) -> str:
    path = directory / "distlog.toml"
    path.write_text(content, "utf-8")
    return str(path)


# --- TLS ---

CERTIFICATES = {"tls_cert": "n1.pem", "tls_key": "n1.key", "tls_ca": "ca.pem"}


@pytest.mark.parametrize("missing", CERTIFICATES)
def test_a_certificate_its_key_and_an_authority_belong_together(missing: str) -> None:
    flags = {name: path for name, path in CERTIFICATES.items() if name != missing}
    flag = "--" + missing.replace("_", "-")
    with pytest.raises(ConfigurationInvalid, match=f"{flag}: is required with --tls-"):
        load(flags, {})


@pytest.mark.parametrize("name", ["tls_peer_ca", "tls_peer_name"])
def test_what_peers_must_show_needs_certificates(name: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="--tls-cert: is required with --tls-peer"):
        load({name: "OU:nodes"}, {})


def test_a_node_with_certificates_may_be_reached_from_other_machines() -> None:
    addresses = {
        "listen": "10.0.0.1:8400",
        "peer_listen": "10.0.0.1:8401",
        "http_listen": "10.0.0.1:8404",
    }
    config = load({**CERTIFICATES, **addresses}, {})
    assert not config.listen.is_loopback
    for name, address in addresses.items():
        flag = "--" + name.replace("_", "-")
        with pytest.raises(ConfigurationInvalid, match=f"{flag}: .*give --tls-cert, --tls-key and"):
            load({name: address}, {})


def test_insecure_contradicts_certificates() -> None:
    with pytest.raises(ConfigurationInvalid, match="--insecure: is for nodes without certificates"):
        load({**CERTIFICATES, "insecure": "true"}, {})


def test_with_certificates_an_agent_of_the_node_s_own_encrypts_as_well() -> None:
    serf = {"node_id": "n1", "discovery": "serf"}
    with pytest.raises(ConfigurationInvalid, match="--serf-key-file: is required with --tls-cert"):
        load({**CERTIFICATES, **serf}, {})
    load({**CERTIFICATES, **serf, "serf_key_file": "key"}, {})
    load(serf, {})
    # Its key is the business of whoever runs it.
    load({**CERTIFICATES, "node_id": "n1", "discovery": "serf://127.0.0.1:7373"}, {})


def test_what_strangers_may_see_by_http_means_something_with_certificates_alone() -> None:
    assert load({**CERTIFICATES, "http_open": "true"}, {}).http_open
    with pytest.raises(ConfigurationInvalid, match="--http-open: means nothing without a --tls-ce"):
        load({"http_open": "true"}, {})


def test_any_peer_needs_an_authority_that_signs_nodes_alone() -> None:
    with pytest.raises(ConfigurationInvalid, match="any makes every client a node"):
        load({**CERTIFICATES, "tls_peer_name": "any"}, {})
    load({**CERTIFICATES, "tls_peer_name": "any", "tls_peer_ca": "nodes.pem"}, {})


@pytest.mark.parametrize("name", ["", "n1", "XX:n1", "URI:", "URI:a b", "Any"])
def test_a_peer_name_has_a_kind(name: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="must be URI:, DNS:, EMAIL:, OU: or CN:"):
        load({**CERTIFICATES, "tls_peer_name": name}, {})
