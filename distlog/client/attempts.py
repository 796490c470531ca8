"""One attempt at one node: how its failure is named, and when the next one may follow.

A status with distlog's ErrorInfo is a refusal, and raised as the class that it names.  Any other comes from the transport: a
read was not answered, and of a write nobody knows whether it happened, so it is OutcomeUnknown; unless it never left, since there was
no connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from random import Random

import grpc
import grpc.aio

from distlog.api.status import DETAILS_KEY, error_from_status
from distlog.errors import (
    AnswerInvalid,
    CorruptBatch,
    CorruptIndex,
    DescriptorsExhausted,
    DistlogError,
    InternalError,
    MembershipChangeUnderWay,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RecordTooLarge,
    ShuttingDown,
    StorageFull,
    Unreachable,
    UnrecognizedError,
)

# Another attempt, perhaps at another node, may succeed.  Everything else is final: the next attempt would end the same way.
RETRIED = (
    NotLeader,
    NoLeader,
    ShuttingDown,
    Overloaded,
    StorageFull,
    DescriptorsExhausted,
    MembershipChangeUnderWay,
    OutcomeUnknown,
    InternalError,
    Unreachable,
)
# After these the record may exist.  After any other the node says, or we know, that this attempt wrote nothing.
AMBIGUOUS = (OutcomeUnknown, InternalError, AnswerInvalid, UnrecognizedError)
# Another node may have what this one cannot give: a file that is whole in place of a corrupt one, too.
READ_ELSEWHERE = (*RETRIED, CorruptBatch, CorruptIndex)
# The pauses between attempts double from the first one to PAUSE_FACTOR_MAX times that.
PAUSE_FIRST_S = 0.05
PAUSE_FACTOR_MAX = 20
# What another attempt has at least of the time that is left, or this part of the whole.  With less it would hardly be answered; and of a
# write that is not, nobody knows any more what the attempts before it were told.
LAST_ATTEMPT_S, LAST_ATTEMPT_PART = 0.25, 1 / 8
OnRetry = Callable[[DistlogError], None]
# How gRPC itself words that a message is over the limit of one of the two ends.
TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")
# What gRPC says of a call that was given no connection, because none came about: nothing of it was sent.
NEVER_SENT = re.compile(r"^failed to connect to all addresses\b")
# gRPC prefixes the reason with every address that it tried.
CONNECT_FAILED = re.compile(r".*Failed to connect to remote host: ")

# What gRPC says of a connection that did not come about because of certificates, and what it means; the first that is found.
TLS_PROBLEMS = (
    (
        re.compile("WRONG_VERSION_NUMBER|HTTP_REQUEST"),
        "it does not speak TLS: leave out --tls-ca, --tls-cert and --tls-key (DISTLOG_TLS_*), or take its client address",
    ),
    (
        re.compile(
            "Hostname Verification Check failed|IP address mismatch|hostname mismatch",
            re.IGNORECASE,
        ),
        "its certificate does not name the host at which it was reached: take one of those that it names, or give it another certificate",
    ),
    (
        re.compile("certificate has expired"),
        "its certificate, or that of the authority, has expired: renew it there, or set the clock here",
    ),
    (
        re.compile("certificate is not yet valid"),
        "its certificate is not valid yet: set the clock here, or there",
    ),
    (
        re.compile("CERTIFICATE_VERIFY_FAILED"),
        "its certificate is not signed by an authority of --tls-ca: compare the two",
    ),
    (
        re.compile("failed to connect to all addresses; last error: .*Socket closed"),
        "it closed the connection before the first call: it speaks TLS, and wants a certificate that it trusts (--tls-ca, --tls-cert, "
        "--tls-key)",
    ),
)


def write_error(error: grpc.aio.AioRpcError, address: str) -> DistlogError:
    """Return what the failure of a write means: the node's refusal, Unreachable if it was never sent, or OutcomeUnknown."""
    refusal = _refusal(error, address)
    if refusal is None and was_never_sent(error):
        refusal = Unreachable(addresses=address, problem=_problem(error))
    return refusal or OutcomeUnknown(cause=f"{address}: {_problem(error)}")


def was_never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether a call failed before anything of it could leave."""
    is_unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return is_unavailable and NEVER_SENT.match(error.details() or "") is not None


def read_error(error: grpc.aio.AioRpcError, address: str) -> DistlogError:
    """Return what the failure of a read means: the node's refusal, or Unreachable."""
    return _refusal(error, address) or Unreachable(addresses=address, problem=_problem(error))


def _refusal(error: grpc.aio.AioRpcError, address: str) -> DistlogError | None:
    trailers = error.trailing_metadata()
    details = trailers.get(DETAILS_KEY) if trailers is not None else None
    refusal = error_from_status(details if isinstance(details, bytes) else None)
    if refusal is not None:
        return refusal
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return AnswerInvalid(address=address, problem="does not know the call")
    too_large = TOO_LARGE.search(error.details() or "")
    if too_large is not None:
        return RecordTooLarge(size=int(too_large[1]), size_max=int(too_large[2]))
    return None


def _problem(error: grpc.aio.AioRpcError) -> str:
    code = str(error.code().name).lower().replace("_", " ")
    for pattern, problem in TLS_PROBLEMS:
        if pattern.search(error.details() or ""):
            return problem
    details = CONNECT_FAILED.sub("", error.details() or "")
    return f"{code}: {details}" if details else code


class Backoff:
    """The pauses between attempts: doubling, and each shortened by up to half at random.

    Without a generator they are not shortened; many clients that lost the same node then return at the same moments.
    """

    def __init__(
        self, first_s: float, random: Random | None, on_retry: OnRetry | None = None
    ) -> None:
        """on_retry(error): is told why another attempt may follow."""
        self._first_s = first_s
        self._random = random
        self._on_retry = on_retry
        self._failure_count = 0

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._failure_count = 0

    def next_pause_s(self, error: DistlogError) -> float:
        """Return how long to wait after `error`, the failure of the attempt just made."""
        if self._on_retry is not None:
            self._on_retry(error)
        # 2**5 is past the longest pause; a larger exponent would only be a larger number.
        pause_s = self._first_s * min(PAUSE_FACTOR_MAX, 1 << min(self._failure_count, 5))
        self._failure_count += 1
        if self._failure_count == 1 and isinstance(error, NotLeader) and error.leader_address:
            # It said who is.  Only once: two nodes that name each other must not be asked in a tight circle.
            return 0.0
        return pause_s * (1 - self._random.random() / 2) if self._random else pause_s


class Deadline:
    """A moment on the event loop's clock until which attempts are made."""

    def __init__(self, timeout_s: float) -> None:
        self._end = asyncio.get_running_loop().time() + timeout_s
        self._least_s = min(LAST_ATTEMPT_S, timeout_s * LAST_ATTEMPT_PART)

    def allows(self, pause_s: float = 0.0) -> bool:
        """Tell whether there is time left after a pause in which another attempt may be answered."""
        return asyncio.get_running_loop().time() + pause_s < self._end - self._least_s

    def remaining_s(self) -> float:
        return max(0.0, self._end - asyncio.get_running_loop().time())
