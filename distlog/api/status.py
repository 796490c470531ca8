"""What an error looks like on the wire: distlog's error classes as gRPC statuses, and back.

    DistlogError  <->  code, text, and in the trailer `grpc-status-details-bin` a google.rpc.Status with
                       ErrorInfo(reason, domain "distlog", metadata: every field) and, where there is a delay, RetryInfo

The code says what the caller can do.  A status without an ErrorInfo of this domain comes from the transport: whoever sent a
write must then take its outcome as unknown.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.errors import DistlogError

DOMAIN = "distlog"
DETAILS_KEY = "grpc-status-details-bin"
# Characters of a text or a field.  Trailers have a limit of 8 KiB on the client's side, and a status that is over it arrives
# as another one; a character may take 12 bytes of the text and 5 of a field.
TEXT_LENGTH_MAX = 300

# Every class that a caller can be told.  Any other, raised inside a call, is a mistake of ours: INTERNAL.
CODES: dict[type[DistlogError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RecordTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotAuthorized: grpc.StatusCode.PERMISSION_DENIED,
    errors.OffsetOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.OffsetMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotLeader: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NoLeader: grpc.StatusCode.UNAVAILABLE,
    errors.LeadershipNotTransferred: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DescriptorsExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.OutcomeUnknown: grpc.StatusCode.ABORTED,
    errors.OutOfSequence: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProducerUnknown: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProducerFenced: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TopicNotFound: grpc.StatusCode.NOT_FOUND,
    errors.TopicExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.MemberNotFound: grpc.StatusCode.NOT_FOUND,
    errors.MemberExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.MembershipChangeUnderWay: grpc.StatusCode.UNAVAILABLE,
    errors.MembershipChangeRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CorruptBatch: grpc.StatusCode.DATA_LOSS,
    errors.CorruptIndex: grpc.StatusCode.DATA_LOSS,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
CLASSES: dict[str, type[DistlogError]] = {error.reason: error for error in CODES}


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How a call ends: what a gRPC status and its trailer hold."""

    code: grpc.StatusCode
    text: str
    # A serialized google.rpc.Status, the value of the trailer DETAILS_KEY.
    details: bytes

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        return ((DETAILS_KEY, self.details),)


def status_of(error: DistlogError) -> ErrorStatus:
    """Return the status that tells a caller of `error`, whose class must be one of CODES."""
    code = CODES[type(error)]
    text = shortened(str(error))
    metadata = {name: shortened(value) for name, value in error.metadata().items()}
    details = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    delay_s = getattr(error, "retry_delay_s", None)
    if delay_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(delay_s * 1000))
        details.append(RetryInfo(retry_delay=delay))
    status = Status(code=code.value[0], message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return ErrorStatus(code, text, status.SerializeToString())


def error_from_status(details: bytes | None) -> DistlogError | None:
    """Return the error that a status tells of, from the value of its trailer DETAILS_KEY.

    Returns None if the status is not distlog's (it comes from the transport, and a write may have happened), and
    UnrecognizedError if a newer node knows a reason that this version does not.
    """
    try:
        status = Status.FromString(details or b"")
        info = _error_info(status)
    except DecodeError:
        return None
    if info is None:
        return None
    return _known_error(info.reason, dict(info.metadata), status.message)


def message_of(error: DistlogError) -> log_pb2.Error:
    """Return an error that ends no call, as a message; its class must be one of CODES."""
    metadata = {name: shortened(value) for name, value in error.metadata().items()}
    return log_pb2.Error(
        code=CODES[type(error)].value[0],
        reason=error.reason,
        text=shortened(str(error)),
        metadata=metadata,
    )


def error_from_message(message: log_pb2.Error) -> DistlogError:
    """Return the error that a message tells of; UnrecognizedError for a reason that this version does not know."""
    return _known_error(message.reason, dict(message.metadata), message.text)


def _known_error(reason: str, metadata: dict[str, str], text: str) -> DistlogError:
    known = CLASSES.get(reason)
    if known is not None:
        # A number that is none, or a field of a newer version: then it is not the error that this version knows.
        with contextlib.suppress(ValueError, TypeError):
            return known.from_metadata(metadata)
    return errors.UnrecognizedError(unknown_reason=reason, message=text)


def _error_info(status: Status) -> ErrorInfo | None:
    for detail in status.details:
        info = ErrorInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return None


def shortened(text: str) -> str:
    """Return `text`, cut so that what a caller sent cannot make its own refusal too large to arrive."""
    return text if len(text) <= TEXT_LENGTH_MAX else text[:TEXT_LENGTH_MAX] + " [cut]"
