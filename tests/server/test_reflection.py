"""Reflection is a call like any other: it is refused in words, counted, and ended when the node stops."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from distlog.errors import InvalidRequest, ShuttingDown
from tests.server.serving import Serving, refusal, serve

METHOD = "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo"
PATH = "/{}/{}".format(*METHOD.rsplit(".", 1))
QUESTION = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


def test_bytes_that_are_no_question_are_refused_and_leave_nothing_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(server: Serving) -> None:
        call = server.channel.stream_stream(PATH)()
        await call.write(b"\xff\xff")
        refused = await refusal(call.read())
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(refused.error, InvalidRequest)
        assert server.listener.calls.ended[METHOD].codes["INVALID_ARGUMENT"] == 1

    serve(body)
    assert caplog.text == ""


def test_a_stop_ends_it() -> None:
    async def body(server: Serving) -> None:
        call = server.channel.stream_stream(PATH)()
        await call.write(QUESTION)
        assert b"log.v1.Cluster" in await call.read()
        async with asyncio.timeout(2):
            await server.listener.stop()
        refused = await refusal(call.read())
        assert isinstance(refused.error, ShuttingDown)

    serve(body)
