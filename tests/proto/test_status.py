"""The error table: what a caller is told, and that the client can raise the same error again."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.api.status import (
    CODES,
    DOMAIN,
    error_from_message,
    error_from_status,
    message_of,
    status_of,
)
from distlog.errors import DistlogError, all_errors

# STYLE of errors: the code says what the caller can do.
EXPECTED = {
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "RECORD_TOO_LARGE": "INVALID_ARGUMENT",
    "NOT_AUTHORIZED": "PERMISSION_DENIED",
    "OFFSET_OUT_OF_RANGE": "OUT_OF_RANGE",
    "OFFSET_MISMATCH": "FAILED_PRECONDITION",
    "NOT_LEADER": "FAILED_PRECONDITION",
    "NO_LEADER": "UNAVAILABLE",
    "LEADERSHIP_NOT_TRANSFERRED": "FAILED_PRECONDITION",
    "SHUTTING_DOWN": "UNAVAILABLE",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "STORAGE_FULL": "RESOURCE_EXHAUSTED",
    "DESCRIPTORS_EXHAUSTED": "RESOURCE_EXHAUSTED",
    "OUTCOME_UNKNOWN": "ABORTED",
    "OUT_OF_SEQUENCE": "FAILED_PRECONDITION",
    "PRODUCER_UNKNOWN": "FAILED_PRECONDITION",
    "PRODUCER_FENCED": "FAILED_PRECONDITION",
    "TOPIC_NOT_FOUND": "NOT_FOUND",
    "TOPIC_EXISTS": "ALREADY_EXISTS",
    "MEMBER_NOT_FOUND": "NOT_FOUND",
    "MEMBER_EXISTS": "ALREADY_EXISTS",
    "MEMBERSHIP_CHANGE_UNDER_WAY": "UNAVAILABLE",
    "MEMBERSHIP_CHANGE_REFUSED": "FAILED_PRECONDITION",
    "CORRUPT_BATCH": "DATA_LOSS",
    "CORRUPT_INDEX": "DATA_LOSS",
    "INTERNAL": "INTERNAL",
}


def example(error_class: type[DistlogError]) -> DistlogError:
    """Return an error with a telling value in every field."""
    types = typing.get_type_hints(error_class)
    samples: dict[Any, Any] = {int: 2**63 + 1, float: 0.25, str: "a 'word' & ünicode\n"}
    return error_class(
        **{field.name: samples[types[field.name]] for field in dataclasses.fields(error_class)}
    )


def test_every_reason_is_unique() -> None:
    reasons = [error_class.reason for error_class in all_errors()]
    assert len(set(reasons)) == len(reasons)


def test_the_code_of_every_error_that_a_caller_can_get() -> None:
    assert {error_class.reason: code.name for error_class, code in CODES.items()} == EXPECTED


@pytest.mark.parametrize("error_class", CODES, ids=lambda error_class: error_class.reason)
def test_every_error_makes_the_round_trip(error_class: type[DistlogError]) -> None:
    error = example(error_class)
    status = status_of(error)
    again = error_from_status(status.details)
    assert type(again) is error_class
    assert again.fields() == error.fields()
    assert str(again) == str(error) == status.text


@pytest.mark.parametrize("error_class", all_errors(), ids=lambda error_class: error_class.reason)
def test_every_error_is_a_sentence_with_its_numbers(error_class: type[DistlogError]) -> None:
    assert "{" not in str(example(error_class))


def test_the_details_are_standard_so_that_any_client_can_read_them() -> None:
    status = Status.FromString(status_of(errors.NoLeader("an election", 1.5)).details)
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("NO_LEADER", "distlog")
    assert dict(info.metadata) == {"problem": "an election", "retry_delay_s": "1.5"}
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_a_reason_of_a_newer_node_is_told_apart_from_the_transport() -> None:
    error = error_from_status(details_with(ErrorInfo(reason="LATER", domain=DOMAIN)))
    assert isinstance(error, errors.UnrecognizedError)
    assert str(error) == (
        "it said this (reason LATER, which this version does not know: upgrade it)"
    )


def test_a_number_that_is_none_is_not_taken_for_the_error() -> None:
    info = ErrorInfo(reason="RECORD_TOO_LARGE", domain=DOMAIN, metadata={"size": "many"})
    assert isinstance(error_from_status(details_with(info)), errors.UnrecognizedError)


@pytest.mark.parametrize(
    "details",
    [
        None,
        b"",
        b"\xff\xff",
        Status(code=14, message="from a proxy").SerializeToString(),
        Status(details=[AnyMessage(type_url="x/google.rpc.ErrorInfo", value=b"\xff")]),
        ErrorInfo(reason="NOT_LEADER", domain="another.example"),
    ],
    ids=["none", "empty", "garbage", "no details", "garbage details", "another domain"],
)
def test_a_status_without_our_error_info_comes_from_the_transport(details: Any) -> None:
    if isinstance(details, ErrorInfo):
        details = details_with(details)
    elif isinstance(details, Status):
        details = details.SerializeToString()
    assert error_from_status(details) is None


def test_a_refusal_fits_into_trailers_whatever_the_caller_sent() -> None:
    error = errors.InvalidRequest(field="\N{GRINNING FACE}" * 10_000, problem="x" * 10_000)
    status = status_of(error)
    # As gRPC sends them: the text percent-encoded, the details in base64.
    size = 3 * len(status.text.encode()) + 4 * len(status.details) // 3
    assert size < 8192 - 512
    assert isinstance(error_from_status(status.details), errors.InvalidRequest)


@pytest.mark.parametrize("error_class", list(CODES), ids=lambda error_class: error_class.reason)
def test_an_error_that_ends_no_call_says_the_same(error_class: type[DistlogError]) -> None:
    error = example(error_class)
    message = message_of(error)
    status = status_of(error)
    assert (message.code, message.text) == (status.code.value[0], status.text)
    found = error_from_message(log_pb2.Error.FromString(message.SerializeToString()))
    assert (type(found), found.fields()) == (error_class, error.fields())


def test_a_message_with_a_reason_of_a_newer_node_is_told() -> None:
    found = error_from_message(log_pb2.Error(code=9, reason="LATER", text="it said this"))
    assert isinstance(found, errors.UnrecognizedError)
    assert (found.unknown_reason, found.message) == ("LATER", "it said this")


def details_with(info: ErrorInfo) -> bytes:
    status = Status(code=9, message="it said this")
    status.details.add().Pack(info)
    return status.SerializeToString()
