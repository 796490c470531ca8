"""The errors about an agent are such as all errors of distlog are."""

from __future__ import annotations

import dataclasses

from distlog.discovery.serf import errors
from distlog.errors import DistlogError, all_errors

OWN = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, DistlogError) and value is not DistlogError
]


def test_every_reason_is_unique() -> None:
    reasons = [error.reason for error in (*OWN, *all_errors())]
    assert len(set(reasons)) == len(reasons)
    assert OWN


def test_every_error_is_a_sentence_with_its_fields() -> None:
    for error_class in OWN:
        names = [field.name for field in dataclasses.fields(error_class)]
        text = str(error_class(**{name: f"<{name}>" for name in names}))
        assert all(f"<{name}>" in text for name in names), text
        assert "{" not in text
