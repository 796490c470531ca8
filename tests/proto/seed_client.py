"""A client of the system before distlog: it has that system's log.proto, plain gRPC, and nothing of distlog.

    python seed_client.py HOST:PORT DIRECTORY_OF_LOG_PROTO SCRATCH_DIRECTORY

Produces two records, consumes them, asks for one that does not exist, and prints what it saw as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys

import grpc
from grpc_tools import protoc


def main(address: str, protos: str, scratch: str) -> None:
    arguments = [f"-I{protos}", f"--python_out={scratch}", f"--grpc_python_out={scratch}"]
    assert protoc.main(["protoc", *arguments, "log.proto"]) == 0
    sys.path.insert(0, scratch)
    messages = importlib.import_module("log_pb2")
    services = importlib.import_module("log_pb2_grpc")
    assert not any(name.startswith("distlog") for name in sys.modules)
    with grpc.insecure_channel(address) as channel:
        stub = services.LogStub(channel)
        produced = [
            stub.Produce(messages.ProduceRequest(record=record)).offset
            for record in (b"hello", b"world!!!")
        ]
        consumed = []
        for offset in produced:
            response = stub.Consume(messages.ConsumeRequest(offset=offset))
            consumed.append([response.offset, response.record.decode()])
        try:
            stub.Consume(messages.ConsumeRequest(offset=2))
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
    print(json.dumps({"produced": produced, "consumed": consumed, "past_the_end": code}))


if __name__ == "__main__":
    main(*sys.argv[1:])
