"""Nodes that saw the same directories form the same cluster, and no others do."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from distlog.consensus.configuration import Configuration

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
