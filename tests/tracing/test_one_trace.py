"""One produce is one trace, on the client and on all three nodes that have a part in it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.block import Block
from distlog.consensus.entry_traces import PER_ENTRY_MAX
from distlog.logs import JsonLines
from tests.processes.process_cluster import NODE_IDS
from tests.tracing.traced_nodes import CLIENT, Spanned, Traced, traced_nodes, traces_of, tree_of

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
SECRETS = ("a value that nobody must see", "customer 7 of them", "a header of theirs")

Story = Callable[[Traced], Awaitable[None]]


def with_nodes(story: Story, directory: Path, **options: Sampler) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), traced_nodes(directory, **options) as traced:
            await story(traced)

    asyncio.run(run())


def drawn(traced: Traced, lines: list[str], depth: int = 0) -> list[str]:
    """Return how lines are drawn in a trace, with how a proposal goes through the cluster in the place of `propose`."""
    leader = traced.leader
    entry = [f"{leader} propose", f"  {leader} append", f"  {leader} apply"]
    for follower in sorted(traced.followers):
        entry += [f"  {leader} replicate", f"    {follower} append", f"      {follower} apply"]
    found = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        found += [indent + each for each in entry] if line.strip() == "propose" else [line]
    return found


def whole_traces(spans: list[Spanned]) -> list[list[Spanned]]:
    """Return the traces of whose every proposal all three nodes have said what there was to say, and whose root has ended."""
    found = []
    for trace in traces_of(spans).values():
        proposed = sum(span.name == "propose" for span in trace)
        applied = sum(span.name == "apply" for span in trace)
        if proposed and applied == 3 * proposed and trace[0].parent_id is None:
            found.append(trace)
    return found


def test_one_record_is_one_connected_trace_across_three_nodes(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        value, key, header = (word.encode() for word in SECRETS)
        leader = traced.leader
        async with traced.client() as client:
            await client.produce(b"the first one opens a producer", topic="")
            await traced.until_there(lambda spans: len(whole_traces(spans)) == 1)
            traced.exporter.clear()
            offset = await client.produce(value, key=key, headers=[("name", header)])
        spans = await traced.until_there(lambda spans: len(whole_traces(spans)) == 1)
        assert tree_of(spans) == drawn(
            traced,
            [
                f"{CLIENT} send default",
                f"  {CLIENT} log.v1.Log/Produce",
                f"    {leader} log.v1.Log/Produce",
                f"      {leader} acknowledge",
                "      propose",
            ],
        )
        assert {span.node for span in spans} == {CLIENT, *traced.nodes}
        assert len(traces_of(spans)) == 1
        assert spans[0].attributes["distlog.offset"] == offset
        assert all(span.is_ok for span in spans)
        assert not any(word in str(span) for span in spans for word in SECRETS)
        kinds = {span.place: span.kind for span in spans}
        assert kinds[CLIENT, "send default"] == "PRODUCER"
        assert kinds[CLIENT, "log.v1.Log/Produce"] == kinds[leader, "replicate"] == "CLIENT"
        assert kinds[leader, "log.v1.Log/Produce"] == "SERVER"
        assert {kinds[follower, "append"] for follower in traced.followers} == {"SERVER"}
        by_id = {span.id: span for span in spans}
        for span in spans[1:]:
            assert span.parent_id is not None
            assert span.began_at >= by_id[span.parent_id].began_at, str(span)

    with_nodes(story, tmp_path)


def test_the_first_record_of_a_client_shows_that_it_opens_a_producer_first(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        leader = traced.leader
        async with traced.client() as client:
            await client.produce(b"x")
        spans = await traced.until_there(lambda spans: len(whole_traces(spans)) == 1)
        calls: list[str] = []
        for method in ("OpenProducer", "Produce"):
            calls += [
                f"  {CLIENT} log.v1.Log/{method}",
                f"    {leader} log.v1.Log/{method}",
                f"      {leader} acknowledge",
                "      propose",
            ]
        assert tree_of(spans) == drawn(traced, [f"{CLIENT} send default", *calls])

    with_nodes(story, tmp_path)


def test_a_batch_is_one_trace_and_has_the_parent_that_its_first_record_was_produced_in(
    tmp_path: Path,
) -> None:
    async def story(traced: Traced) -> None:
        leader = traced.leader
        tracer = traced.provider("program").get_tracer("of the user")
        async with traced.client() as client, await client.open_producer("default") as producer:
            # A trace of the leader alone, which nobody has asked for one.
            await traced.until_there(lambda spans: len(whole_traces(spans)) == 1)
            traced.exporter.clear()
            with tracer.start_as_current_span("order"):
                futures = [await producer.produce(b"%d" % number) for number in range(10)]
            await asyncio.gather(*futures)
        trace = await traced.until_there(lambda spans: len(whole_traces(spans)) == 1)
        count = sum(span.name == "send default" for span in trace)
        assert tree_of(trace) == drawn(
            traced,
            [
                "program order",
                *[
                    f"  {CLIENT} send default",
                    f"    {leader} log.v1.Log/ProduceBatch",
                    f"      {leader} acknowledge",
                    "      propose",
                ]
                * count,
            ],
        )
        sent = [span for span in trace if span.name == "send default"]
        assert sum(span.attributes["messaging.batch.message_count"] for span in sent) == 10  # type: ignore[misc]
        assert {tuple(span.events) for span in sent} == {("sent",)}

    with_nodes(story, tmp_path)


def test_many_at_once_are_a_connected_trace_each_and_an_entry_costs_no_more_than_a_few(
    tmp_path: Path,
) -> None:
    async def story(traced: Traced) -> None:
        async with traced.client() as client:
            await asyncio.gather(*[client.produce(b"%d" % number) for number in range(200)])
        log = traced.nodes[traced.leader].replicated_log
        followers = [traced.nodes[name].replicated_log for name in traced.followers]

        def is_over(spans: list[Spanned]) -> bool:
            if any(follower.topic("").high_watermark < 200 for follower in followers):
                return False
            appends = {span.id for span in spans if span.name == "append" and span.kind == "SERVER"}
            applied = {span.parent_id for span in spans if span.name == "apply"}
            return appends <= applied and sum(span.name == "send default" for span in spans) == 200

        spans = await traced.until_there(is_over)
        traces = traces_of(spans)
        assert len(traces) == 200
        for trace in traces.values():
            tree_of(trace)
        entries = log.proposals.counts.count
        for name in ("append", "replicate", "apply"):
            here = [span for span in spans if span.place == (traced.leader, name)]
            assert len(here) <= PER_ENTRY_MAX * entries * (2 if name == "replicate" else 1)
        # Who shares the work of an entry without a part of its own points to who shows it.
        shown = {span.parent_id for span in spans if span.place == (traced.leader, "append")}
        for span in spans:
            if span.name == "propose":
                assert (span.id in shown) != (len(span.links) == 1)
                assert set(span.links) <= shown

    with_nodes(story, tmp_path)


def test_nothing_of_a_trace_is_in_any_file_and_the_nodes_have_the_same_bytes(
    tmp_path: Path,
) -> None:
    async def story(traced: Traced) -> None:
        async with traced.client() as client:
            for number in range(5):
                await client.produce(b"%d" % number)
        await traced.until_there(lambda spans: len(whole_traces(spans)) == 5)
        spans.extend(traced.spans())

    spans: list[Spanned] = []
    with_nodes(story, tmp_path)
    logs = [sorted((tmp_path / name).glob("groups/*/topics/*/*.log")) for name in NODE_IDS]
    assert [len(paths) for paths in logs] == [1, 1, 1]
    assert len({paths[0].read_bytes() for paths in logs}) == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".journal" for path in files)
    stored = b"".join(path.read_bytes() for path in files)
    for span in spans:
        for word in (span.trace_id.encode(), bytes.fromhex(span.trace_id), span.id.to_bytes(8)):
            assert word not in stored


async def produce(traced: Traced, metadata: Any, batch: str | None = None) -> None:
    """Produce one record by a plain gRPC client, in one call or as a batch that says itself what it is a part of."""
    address = traced.addresses[traced.leader]
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = log_pb2_grpc.LogStub(channel)
        if batch is None:
            await stub.Produce(log_pb2.ProduceRequest(record=b"x"), metadata=metadata)
            return
        block = b"".join(Block.from_records([b"x"]).parts())
        request = log_pb2.ProduceBatchRequest(block=block, traceparent=batch)
        answers = [each async for each in stub.ProduceBatch(iter([request]), metadata=metadata)]
        assert [answer.HasField("error") for answer in answers] == [False]


@pytest.mark.parametrize("batch", [None, SAMPLED, ""])
def test_a_client_of_another_make_is_followed_by_the_standard_s_header(
    batch: str | None, tmp_path: Path
) -> None:
    async def story(traced: Traced) -> None:
        state = ("tracestate", "vendor=7")
        await produce(traced, [("traceparent", SAMPLED), state], batch)
        spans = await traced.until_there(lambda spans: sum(s.name == "apply" for s in spans) == 3)
        assert {span.trace_id for span in spans} == {TRACE_ID}
        (first,) = [span for span in spans if span.parent_id == int(SPAN_ID, 16)]
        assert first.place == (
            traced.leader,
            "log.v1.Log/Produce" if batch is None else "log.v1.Log/ProduceBatch",
        )

    with_nodes(story, tmp_path)


def test_a_stream_of_single_records_is_part_of_what_its_call_is_part_of(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        async with grpc.aio.insecure_channel(traced.addresses[traced.leader]) as channel:
            stub: Any = log_pb2_grpc.LogStub(channel)
            requests = [log_pb2.ProduceRequest(record=b"%d" % number) for number in range(3)]
            stream = stub.ProduceStream(iter(requests), metadata=[("traceparent", SAMPLED)])
            assert [answer.offset async for answer in stream] == [0, 1, 2]
        name = "log.v1.Log/ProduceStream"
        spans = await traced.until_there(lambda spans: sum(s.name == name for s in spans) == 3)
        calls = [span for span in spans if span.name == name]
        assert {(span.trace_id, span.parent_id) for span in calls} == {(TRACE_ID, int(SPAN_ID, 16))}

    with_nodes(story, tmp_path)


HOSTILE = {
    "empty": "",
    "words": "not a traceparent",
    "zero trace": f"00-{'0' * 32}-{SPAN_ID}-01",
    "zero span": f"00-{TRACE_ID}-{'0' * 16}-01",
    "forbidden version": f"ff-{TRACE_ID}-{SPAN_ID}-01",
    "upper case": f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
    "short": SAMPLED[:-1],
    "longer than its version": SAMPLED + "-00",
    "very long": SAMPLED + "-" + "0" * 5000,
    "no hexadecimal": SAMPLED.replace("4", "g"),
}


@pytest.mark.parametrize("as_batch", [False, True])
def test_nonsense_begins_a_trace_of_its_own_and_the_record_is_written(
    as_batch: bool, tmp_path: Path
) -> None:
    async def story(traced: Traced) -> None:
        for header in HOSTILE.values():
            if as_batch:
                await produce(traced, None, header)
            else:
                await produce(traced, [("traceparent", header)])
        await produce(traced, [("traceparent", SAMPLED), ("tracestate", "x" * 5000)])
        count = len(HOSTILE) + 1
        spans = await traced.until_there(
            lambda spans: sum(span.name == "apply" for span in spans) == 3 * count
        )
        assert traced.nodes[traced.leader].replicated_log.topic("").high_watermark == count
        followed, *others = sorted(
            traces_of(spans).values(), key=lambda each: each[0].trace_id != TRACE_ID
        )
        assert {span.trace_id for span in followed} == {TRACE_ID}
        assert len(others) == count - 1
        for trace in others:
            tree_of(trace)

    with_nodes(story, tmp_path)


def test_what_its_caller_does_not_sample_is_sampled_nowhere(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        await produce(traced, [("traceparent", SAMPLED[:-1] + "0")])
        await produce(traced, [("traceparent", SAMPLED[:-1] + "0")], SAMPLED[:-1] + "0")
        await produce(traced, [("traceparent", SAMPLED)])
        spans = await traced.until_there(lambda spans: sum(s.name == "apply" for s in spans) == 3)
        assert {span.trace_id for span in spans} == {TRACE_ID}
        assert sum(span.name == "log.v1.Log/Produce" for span in spans) == 1

    with_nodes(story, tmp_path)


def test_a_node_that_samples_nothing_still_goes_on_with_what_others_sample(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        await produce(traced, None)
        await produce(traced, [("traceparent", SAMPLED)])
        spans = await traced.until_there(lambda spans: sum(s.name == "apply" for s in spans) == 3)
        assert {span.trace_id for span in spans} == {TRACE_ID}

    with_nodes(story, tmp_path, sampler=ParentBased(ALWAYS_OFF))


def test_a_refusal_is_in_the_trace_by_its_reason_and_without_its_words(tmp_path: Path) -> None:
    async def story(traced: Traced) -> None:
        (follower, *_) = traced.followers
        async with grpc.aio.insecure_channel(traced.addresses[follower]) as channel:
            stub: Any = log_pb2_grpc.LogStub(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="lead"):
                await stub.Produce(log_pb2.ProduceRequest(record=b"x"))
        (span,) = await traced.until_there(lambda spans: len(spans) == 1)
        assert span.place == (follower, "log.v1.Log/Produce")
        assert span.attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
        assert span.attributes["error.type"] == "FAILED_PRECONDITION"
        # It is no fault of this node.
        assert span.is_ok

    with_nodes(story, tmp_path)


def test_an_incident_is_logged_with_the_ids_of_the_span_that_says_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonLines())

    def mistake(*_arguments: object) -> None:
        raise RuntimeError("a mistake of ours")

    async def story(traced: Traced) -> None:
        log = traced.nodes[traced.leader].replicated_log
        monkeypatch.setattr(log, "propose_append", mistake)
        with pytest.raises(grpc.aio.AioRpcError, match="incident"):
            await produce(traced, [("traceparent", SAMPLED)])
        (span,) = await traced.until_there(lambda spans: len(spans) == 1)
        assert span.trace_id == TRACE_ID
        assert not span.is_ok
        assert span.attributes["error.type"] == "INTERNAL"
        (line,) = [json.loads(line) for line in output.getvalue().splitlines()]
        assert line["event"].startswith("internal error")
        assert (line["trace_id"], line["span_id"]) == (TRACE_ID, f"{span.id:016x}")

    logger = logging.getLogger("distlog.server.calls")
    logger.addHandler(handler)
    try:
        with_nodes(story, tmp_path)
    finally:
        logger.removeHandler(handler)
