"""Which certificates make their holder a node, and which node."""

from __future__ import annotations

import pytest

from distlog.security.peer_name import peer_name_problem

URI = "URI:distlog://node/{node}"


@pytest.mark.parametrize(
    ("template", "names", "node_id"),
    [
        (URI, ("URI:distlog://node/n1", "DNS:a"), "n1"),
        (URI, ("DNS:a", "URI:distlog://node/n1"), "n1"),
        ("DNS:{node}.log.example", ("DNS:N1.Log.Example",), "n1"),
        ("OU:log nodes".replace(" ", "-"), ("OU:log-nodes",), "n7"),
        ("CN:{node}", ("CN:n1",), "n1"),
        ("any", ("DNS:whatever",), "n1"),
        ("any", (), "n1"),
    ],
)
def test_a_certificate_that_fits_the_template_makes_a_node(
    template: str, names: tuple[str, ...], node_id: str
) -> None:
    assert peer_name_problem(template, names, node_id) is None
    assert peer_name_problem(template, names, None) is None


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (URI, ("URI:distlog://node/n2",)),
        (URI, ("URI:distlog://node/N1",)),
        (URI, ("DNS:distlog://node/n1",)),
        (URI, ("CN:URI:distlog://node/n1",)),
        (URI, ("URI:distlog://node/n1/x",)),
        (URI, ("URI:distlog://node/",)),
        ("DNS:{node}.log.example", ("DNS:*.log.example",)),
        ("OU:nodes", ("OU:Nodes",)),
        ("OU:nodes", ("CN:nodes",)),
        ("CN:{node}", ("CN:n1x",)),
        (URI, ()),
    ],
)
def test_a_certificate_that_does_not_fit_makes_nobody_that_node(
    template: str, names: tuple[str, ...]
) -> None:
    problem = peer_name_problem(template, names, "n1")
    assert problem is not None
    assert "must carry " + template.replace("{node}", "n1") in problem


@pytest.mark.parametrize(
    "name",
    ["URI:distlog://client/n1", "URI:distlog://node/", "URI:distlog://node/a/b", "DNS:n1", "CN:n1"],
)
def test_a_certificate_of_no_node_is_known_as_such_before_anything_is_said(name: str) -> None:
    problem = peer_name_problem(URI, (name,), None)
    assert problem is not None
    assert "is no node's" in problem
    assert peer_name_problem(URI, ("URI:distlog://node/n9",), None) is None


def test_a_name_breaks_no_line_of_a_log_and_is_not_told_at_length() -> None:
    problem = peer_name_problem(URI, ["DNS:a\nb\x1b[2J", "CN:" + "x" * 1000], None)
    assert problem is not None
    assert problem.isprintable()
    assert "DNS:a?b?[2J" in problem
    assert len(problem) < 500
