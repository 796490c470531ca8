"""What the fuzzed parsers once did wrong, one test each."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from distlog.addresses import host_and_port
from distlog.catch_up.messages import decode as decode_file
from distlog.cli.acl import read_rules
from distlog.config.kinds import parse_address, parse_bytes, parse_number, parse_seconds
from distlog.config.load import load
from distlog.consensus import messages
from distlog.errors import ConfigurationInvalid, DataDirectoryUnusable, PeerRefused
from distlog.storage.data_directory import DataDirectory
from distlog.storage.log_mark import LogMark, MarkFile
from tests.fuzz.parsers.files import disk_with, sealed_rows

NESTED = b"\x91" * 100_000
LONG_NUMBER = "9" * 5000


@pytest.mark.parametrize("decode", [messages.decode, decode_file])
def test_a_message_that_nests_deeper_than_anybody_reads_is_refused(decode: object) -> None:
    assert callable(decode)
    for known in (b"\x94\x0d\x04\x01", b"\x96\x01\x01\x02\x00\x00"):
        with pytest.raises(PeerRefused):
            decode(known + NESTED, "n2")


def test_text_of_a_peer_that_is_no_text_is_refused() -> None:
    with pytest.raises(PeerRefused):
        decode_file(b"\x94\x07\x01\x01\xa2\xff\xfe", "n2")


def test_a_node_json_that_nests_too_deep_is_unusable_in_words() -> None:
    disk = disk_with({"/data/FORMAT": b"1\n", "/data/node.json": b'{"a":' * 100_000})
    with pytest.raises(DataDirectoryUnusable, match="cannot be understood"):
        DataDirectory.open(disk, "/data", "n1", Random(1))


@pytest.mark.parametrize(
    "text",
    [
        'serf_key_file = "a\\u0000b"',
        'data_dir = "a\\u0000b"',
        f"heartbeat_interval_s = {'9' * 400}",
        f"heartbeat_interval_s = {LONG_NUMBER}",
        "peers = " + "[" * 10_000,
    ],
)
def test_a_file_with_settings_that_no_setting_can_have_is_refused_in_words(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "distlog.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationInvalid):
        load({"config": str(file)}, {})


def test_a_mark_of_a_log_with_no_next_one_is_a_damaged_one() -> None:
    slot = sealed_rows(64)(b"DLOGMARK" + b"\xff" * 8 + bytes(48))
    disk = disk_with({"/log/synced": slot})
    found = MarkFile.open(disk, "/log")
    assert found is not None
    assert found.mark is None
    assert "no mark that can be read" in found.problem
    found.write(LogMark(0, 1, 0, 0, 9))


def test_a_number_that_is_too_long_to_be_read_is_refused_in_the_words_of_its_kind() -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        parse_address(f"h:{LONG_NUMBER}")
    with pytest.raises(ValueError, match="must be a number of bytes"):
        parse_bytes(LONG_NUMBER)
    with pytest.raises(ValueError, match="must be a whole number"):
        parse_number(LONG_NUMBER)
    with pytest.raises(ValueError, match="must be a number of seconds"):
        parse_seconds(10**400)
    assert host_and_port(f"h:{LONG_NUMBER}") is None


def test_a_file_with_settings_that_does_not_end_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match="has more than 1MiB"):
        load({"config": "/dev/zero"}, {})
    with pytest.raises(ConfigurationInvalid, match="cannot be read"):
        load({"config": "no\0where"}, {})


@pytest.mark.parametrize("data", [b"p, \xff, *, *\n", b'p, "a, *, *\n', b"p, a, *, *\n" * 100_000])
def test_a_file_of_rules_that_cannot_be_read_is_refused_in_words(
    data: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "policy.csv"
    file.write_bytes(data)
    with pytest.raises(ConfigurationInvalid, match=r"policy\.csv"):
        read_rules(str(file))
