"""Nodes that saw the same directories form the same cluster, and no others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.consensus.commands import NO_OP, OpenProducer, decode_entry, encode_entry
from distlog.consensus.configuration import (
    REMOVED_COUNT_MAX,
    Addresses,
    Configuration,
    decode_configuration_entry,
    encode_configuration_entry,
    is_configuration,
)
from distlog.errors import EntryCorrupt, EntryUnknown
from tests.consensus.configurations import configurations

NAMES = st.text(alphabet="abc123-.", min_size=1, max_size=6)
VOTERS = st.dictionaries(NAMES, NAMES, min_size=1, max_size=5)


def test_the_cluster_id_is_what_it_always_was() -> None:
    # echo -n 'n1=aa\nn2=bb' with a real line feed, through sha256sum.
    formed = Configuration.form({"n2": "bb", "n1": "aa"})
    assert formed.cluster_id == "cb391ae960f17876"
    assert list(formed.voters.items()) == [("n1", "aa"), ("n2", "bb")]


@given(VOTERS, st.randoms(use_true_random=False))
def test_the_order_in_which_voters_were_heard_does_not_matter(
    voters: dict[str, str], random: Random
) -> None:
    shuffled = list(voters.items())
    random.shuffle(shuffled)
    assert Configuration.form(dict(shuffled)) == Configuration.form(voters)


@given(VOTERS, VOTERS)
def test_other_nodes_or_directories_are_another_cluster(
    some: dict[str, str], others: dict[str, str]
) -> None:
    same = Configuration.form(some).cluster_id == Configuration.form(others).cluster_id
    assert same == (some == others)


def test_a_wiped_node_is_no_longer_the_voter_that_it_was() -> None:
    before = Configuration.form({"n1": "aa", "n2": "bb"})
    wiped = Configuration.form({"n1": "aa", "n2": "cc"})
    assert before.cluster_id != wiped.cluster_id


# --- Changes -------------------------------------------------------------------------------------

FORMED = Configuration.form({"n1": "aa", "n2": "bb"})
HERE, THERE = Addresses("h1:8401", "h1:8400"), Addresses("h3:8401", "h3:8400")


def test_a_learner_becomes_a_voter_and_keeps_its_address() -> None:
    learning = FORMED.with_learner("n3", "cc", {"n1": HERE, "n3": THERE, "n9": HERE})
    assert (dict(learning.voters), learning.learners) == (dict(FORMED.voters), {"n3": "cc"})
    assert learning.addresses == {"n1": HERE, "n3": THERE}, "of members only"
    voting = learning.with_voter("n3")
    assert (list(voting.voters), voting.learners) == (["n1", "n2", "n3"], {})
    assert voting.addresses_of("n3") == THERE
    assert voting.cluster_id == FORMED.cluster_id, "it is the same cluster for ever"


def test_a_removed_identity_is_remembered_and_its_name_may_come_back_with_another_directory() -> (
    None
):
    removed = FORMED.without("n2")
    assert removed.members == {"n1": "aa"}
    assert removed.removed == (("n2", "bb"),)
    again = removed.with_learner("n2", "dd", {"n2": THERE})
    assert again.directory_of("n2") == "dd"
    with pytest.raises(AssertionError):
        removed.with_learner("n2", "bb", {"n2": THERE})


def test_the_oldest_removed_identities_are_forgotten_one_day() -> None:
    configuration = FORMED
    for number in range(REMOVED_COUNT_MAX + 3):
        configuration = configuration.with_learner("n3", f"{number}", {"n3": THERE}).without("n3")
    assert len(configuration.removed) == REMOVED_COUNT_MAX
    assert configuration.removed[0] == ("n3", "3")


# --- Bytes ---------------------------------------------------------------------------------------


@given(configurations(), st.integers(-(1 << 63), (1 << 63) - 1))
def test_an_entry_decodes_to_the_configuration_that_was_encoded(
    configuration: Configuration, timestamp_ms: int
) -> None:
    payload = encode_configuration_entry(configuration, timestamp_ms)
    assert is_configuration(payload)
    decoded = decode_configuration_entry(payload, configuration.raft_index)
    assert decoded == (configuration, timestamp_ms)


EXAMPLE = Configuration(
    "00112233aabbccdd",
    {"n1": "aa"},
    {"n2": "bb"},
    {"n1": Addresses("h1:8401", "h1:8400"), "n2": Addresses("h2:8401", "h2:8400")},
    (("n3", "cc"),),
    target=3,
)
PAYLOAD = encode_configuration_entry(EXAMPLE, 1000)


def test_the_bytes_of_a_configuration_are_those_of_the_page_about_them() -> None:
    page = Path(__file__).parents[2] / "docs" / "format-entry.md"
    example = page.read_text("utf-8").partition("```configuration\n")[2].partition("```")[0]
    assert PAYLOAD.hex() == bytes.fromhex(example).hex()


def refused(payload: bytes) -> bool:
    try:
        decode_configuration_entry(payload, 7)
    except (EntryCorrupt, EntryUnknown):
        return True
    return False


@pytest.mark.parametrize("size", range(3, len(PAYLOAD)))
def test_a_configuration_cut_at_any_byte_is_refused(size: int) -> None:
    assert refused(PAYLOAD[:size])


@given(st.integers(3, len(PAYLOAD) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_configuration_is_read_or_refused_in_words(place: int, other: bytes) -> None:
    refused(PAYLOAD[:place] + other + PAYLOAD[place + len(other) :])


def test_a_configuration_without_voters_or_with_a_member_twice_is_refused() -> None:
    nobody = replace(EXAMPLE, voters={}, learners={"n1": "aa"})
    assert refused(encode_configuration_entry(nobody, 0))
    twice = PAYLOAD.replace(b"n2", b"n1")
    assert refused(twice)
    assert refused(PAYLOAD + b"\0")


def test_a_configuration_of_an_older_version_has_no_target() -> None:
    older = replace(EXAMPLE, target=0)
    payload = encode_configuration_entry(older, 1000)
    assert payload[5:9] == bytes(4)
    assert decode_configuration_entry(payload, 1) == (older, 1000)
    with pytest.raises(EntryUnknown):
        decode_configuration_entry(PAYLOAD[:5] + b"\x21" + PAYLOAD[6:], 1)


def test_a_command_entry_is_no_configuration() -> None:
    assert not is_configuration(NO_OP)
    assert not is_configuration(encode_entry([OpenProducer(0)], 0))
    with pytest.raises(EntryUnknown):
        decode_entry(PAYLOAD)
