"""Clients and producers for tests: they give up early, and pause hardly at all before they try again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from distlog.client import Client, Producer
from tests.client.fake_cluster import FakeCluster

PAUSE_S = 0.001
ANSWER_TIMEOUT_S = 0.05
PATIENT_S = 20.0


def client_of(cluster: FakeCluster, *, seed: int = 1, timeout_s: float = PATIENT_S) -> Client:
    return Client(
        cluster.addresses, retry_pause_s=PAUSE_S, timeout_s=timeout_s, random=Random(seed)
    )


async def open_producer(
    client: Client, *, delivery_timeout_s: float = PATIENT_S, **options: Any
) -> Producer:
    return await client.open_producer(
        delivery_timeout_s=delivery_timeout_s, answer_timeout_s=ANSWER_TIMEOUT_S, **options
    )


async def produce_all(producer: Producer, values: Sequence[bytes]) -> list[asyncio.Future[int]]:
    return [await producer.produce(value) for value in values]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]
