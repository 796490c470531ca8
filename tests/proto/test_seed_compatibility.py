"""Clients of the system before distlog work unmodified: same names, same fields, same bytes."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from grpc_tools import protoc

from distlog.api.log.v1 import log_pb2
from tests.server.serving import Serving, serve

HERE = Path(__file__).parent
SEED_PROTOS = HERE / "seed"


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (log_pb2.ProduceRequest(record=b"hello"), "0a0568656c6c6f"),
        (log_pb2.ProduceRequest(record=b""), ""),
        (log_pb2.ProduceResponse(offset=0), ""),
        (log_pb2.ProduceResponse(offset=300), "08ac02"),
        (log_pb2.ConsumeRequest(offset=0), ""),
        (log_pb2.ConsumeRequest(offset=1), "0801"),
        (log_pb2.ConsumeRequest(offset=2**64 - 1), "08ffffffffffffffffff01"),
        (log_pb2.ConsumeResponse(record=b"world!!!", offset=1), "0a08776f726c642121211001"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else (value or "empty"),
)
def test_the_seeds_messages_have_the_seeds_bytes(message: Message, wire: str) -> None:
    assert message.SerializeToString().hex() == wire
    assert type(message).FromString(bytes.fromhex(wire)) == message


def test_everything_in_the_seeds_proto_is_in_ours(tmp_path: Path) -> None:
    described = tmp_path / "seed.bin"
    arguments = [f"-I{SEED_PROTOS}", f"--descriptor_set_out={described}", "log.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    (seed,) = FileDescriptorSet.FromString(described.read_bytes()).file
    assert seed.package == log_pb2.DESCRIPTOR.package == "log.v1"
    for message in seed.message_type:
        ours = log_pb2.DESCRIPTOR.message_types_by_name[message.name]
        for field in message.field:
            found = ours.fields_by_name[field.name]
            assert (found.number, found.type) == (field.number, field.type), field.name
    (service,) = seed.service
    ours = log_pb2.DESCRIPTOR.services_by_name[service.name]
    for method in service.method:
        found = ours.methods_by_name[method.name]
        assert f".{found.input_type.full_name}" == method.input_type
        assert f".{found.output_type.full_name}" == method.output_type
        assert (found.client_streaming, found.server_streaming) == (False, False)


def test_a_client_that_has_only_the_seeds_proto_works(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def body(server: Serving) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "seed_client.py"),
            f"127.0.0.1:{server.port}",
            str(SEED_PROTOS),
            str(tmp_path),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        seen.update(json.loads(output))

    serve(body)
    assert seen == {
        "produced": [0, 1],
        "consumed": [[0, "hello"], [1, "world!!!"]],
        "past_the_end": "OUT_OF_RANGE",
    }
