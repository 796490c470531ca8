"""Addresses as text, and back."""

from __future__ import annotations

import pytest

from distlog.addresses import address_text, host_and_port


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:0", "h:65536", "h:x"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert host_and_port(text) is None


@pytest.mark.parametrize(("host", "text"), [("h.example", "h.example:1"), ("::1", "[::1]:1")])
def test_an_address_is_the_same_after_it_was_told(host: str, text: str) -> None:
    assert address_text(host, 1) == text
    assert host_and_port(text) == (host, 1)
