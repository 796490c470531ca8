"""What people and strangers get wrong, on real processes: one clear line, an exit status, nothing lost, and no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

from distlog.api.log.v1 import log_pb2
from tests.processes.commands import Finished, run
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import (
    NodeProcess,
    ProcessCluster,
    free_ports,
    random_host,
    until,
)

EXIT_FAILED, EXIT_USAGE = 1, 2
RECORD_SIZE_MAX = 1 << 20


def complaint(finished: Finished, status: int) -> str:
    """Return the one line that a command ended with."""
    assert finished.status == status, finished
    line = finished.complaint
    assert line.startswith("distlog: error: ")
    return line


@contextlib.contextmanager
def taken_port() -> Iterator[str]:
    """Yield an address on which somebody else listens."""
    host = random_host()
    with socket.create_server((host, 0)) as server:
        yield f"{host}:{server.getsockname()[1]}"


# --- A node that does not start ---------------------------------------------------------------------


def test_a_second_process_on_a_data_directory_is_refused(running_cluster: ProcessCluster) -> None:
    async def scenario() -> None:
        await running_cluster.leader()
        node = running_cluster["n1"]
        line = complaint(await run("serve", *node.arguments), EXIT_FAILED)
        assert f"{node.data_dir} is in use by another process" in line
        assert "choose another --data-dir" in line
        assert await running_cluster.status("n1") is not None

    asyncio.run(scenario())


def test_a_newer_format_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("999\n")
    finished = asyncio.run(run("serve", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"))
    line = complaint(finished, EXIT_FAILED)
    assert f"{tmp_path} has format 999 and this version reads up to 1" in line
    assert "start a newer distlog" in line
    assert (tmp_path / "FORMAT").read_text() == "999\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"FORMAT", "LOCK"}


def test_a_client_port_in_use_is_named_with_its_flag(tmp_path: Path) -> None:
    with taken_port() as address:
        finished = asyncio.run(
            run("serve", "--data-dir", str(tmp_path / "n1"), "--listen", address)
        )
    line = complaint(finished, EXIT_FAILED)
    assert f"cannot listen on {address}" in line
    assert "choose another --listen" in line


def test_a_peer_port_in_use_is_named_with_its_flag(tmp_path: Path) -> None:
    with taken_port() as address:
        host = random_host()
        other = f"{host}:{free_ports(host, 1)[0]}"
        arguments = ["--node-id", "n1", "--data-dir", str(tmp_path / "n1"), "--listen", f"{host}:0"]
        arguments += ["--peers", f"n1={address},n2={other}"]
        finished = asyncio.run(run("serve", *arguments))
    line = complaint(finished, EXIT_FAILED)
    assert f"cannot listen on {address}" in line
    assert "choose another --peer-listen" in line


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("not a directory\n")
    for path in (str(file), str(file / "below"), "/proc/distlog/n1"):
        line = complaint(asyncio.run(run("serve", "--data-dir", path)), EXIT_FAILED)
        assert f"{path} cannot be used as a data directory" in line
    assert file.read_text() == "not a directory\n"


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear\n")
    line = complaint(asyncio.run(run("serve", "--data-dir", str(tmp_path))), EXIT_FAILED)
    assert f"{tmp_path} cannot be used as a data directory" in line
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_an_unknown_flag_is_refused_and_the_nearest_one_named(tmp_path: Path) -> None:
    finished = asyncio.run(run("serve", "--data-dri", str(tmp_path / "n1")))
    line = complaint(finished, EXIT_USAGE)
    assert "--data-dri: there is no such flag; did you mean --data-dir?" in line
    assert not (tmp_path / "n1").exists()


def test_an_unknown_variable_is_refused_and_the_nearest_one_named(tmp_path: Path) -> None:
    finished = asyncio.run(
        run(
            "serve", "--data-dir", str(tmp_path / "n1"), variables={"DISTLOG_LISTNE": "127.0.0.1:0"}
        )
    )
    line = complaint(finished, EXIT_USAGE)
    assert "DISTLOG_LISTNE: there is no such variable; did you mean DISTLOG_LISTEN?" in line
    assert not (tmp_path / "n1").exists()


def test_an_unknown_key_of_the_file_is_refused_and_the_nearest_one_named(tmp_path: Path) -> None:
    file = tmp_path / "distlog.toml"
    file.write_text(f'data_dir = "{tmp_path}/n1"\npeer_lisen = "127.0.0.1:0"\n')
    line = complaint(asyncio.run(run("serve", "--config", str(file))), EXIT_USAGE)
    assert f"peer_lisen in {file}: there is no such key; did you mean peer_listen?" in line
    assert not (tmp_path / "n1").exists()


# --- Strangers on the peer port ---------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "one byte": b"\0",
    "zeros": bytes(100_000),
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": Random(1).randbytes(100_000),
    "a frame that is too large": b"\xff\xff\xff\xff" + bytes(12),
}


def test_garbage_on_the_peer_port_is_turned_away_with_a_reason(
    running_cluster: ProcessCluster,
) -> None:
    cluster = running_cluster

    async def scenario() -> None:
        node = cluster[await cluster.leader()]
        # At once: some are only noticed when the time for a handshake is over.
        assert all(await asyncio.gather(*(hung_up(node, data) for data in GARBAGE.values())))

        async def said_why() -> bool:
            return "peer broke the protocol" in node.says()

        await until(said_why, "the node logs why it hung up")
        await cluster.leader()
        given = b"still at work\n"
        assert (await run("produce", "--server", node.address, given=given)).status == 0

    asyncio.run(scenario())


async def hung_up(node: NodeProcess, data: bytes) -> bool:
    """Send data to the node's peer port; return True when the node ends the connection."""
    reader, writer = await asyncio.open_connection(node.host, node.peer_port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 16):
                    pass
        return True
    finally:
        writer.close()


def test_a_node_of_another_cluster_is_refused_and_both_say_why(make_cluster: MakeCluster) -> None:
    ours, theirs = make_cluster(("n1", "n2")), make_cluster(("n1", "n2"))

    async def scenario() -> None:
        ours.start()
        theirs.start()
        await asyncio.gather(ours.leader(), theirs.leader())
        before = await known(ours, "n1"), await known(theirs, "n1")
        await theirs.terminate("n2")
        stranger = theirs["n2"]
        # It dials n1 of the other cluster now.
        stranger.arguments = [
            argument.replace(theirs["n1"].peer_address, ours["n1"].peer_address)
            for argument in stranger.arguments
        ]
        stranger.start()

        async def both_say_why() -> bool:
            refused = f"belongs to cluster {before[1].cluster_id}"
            return refused in ours["n1"].says() and refused in stranger.says()

        await until(both_say_why, "both say which clusters they belong to")
        assert "this node was refused by a peer" in stranger.says()
        # Each goes on among its own.
        await asyncio.gather(ours.leader(), theirs.leader())
        after = await known(ours, "n1"), await known(theirs, "n1")
        assert [each.cluster_id for each in after] == [each.cluster_id for each in before]

    asyncio.run(scenario())


async def known(cluster: ProcessCluster, node_id: str) -> log_pb2.StatusResponse:
    await cluster.all_answer(node_id)
    status = await cluster.status(node_id)
    assert status is not None
    return status


# --- Records and offsets ----------------------------------------------------------------------------


def test_a_record_that_is_too_large_is_refused_and_what_came_before_is_kept(
    running_cluster: ProcessCluster,
) -> None:
    cluster = running_cluster

    async def scenario() -> None:
        begin = await settled_end(cluster)
        largest = b"x" * RECORD_SIZE_MAX
        given = b"\n".join([b"before", largest, largest + b"x", b"after"]) + b"\n"
        finished = await run("produce", "--server", cluster.addresses, given=given)
        line = complaint(finished, EXIT_FAILED)
        assert "line 3 was the first not acknowledged" in line
        assert (
            f"the record has {RECORD_SIZE_MAX + 1} bytes and the limit is {RECORD_SIZE_MAX}" in line
        )
        assert await consume_from(cluster, begin) == b"before\n" + largest + b"\n"

    asyncio.run(scenario())


def test_an_empty_record_is_a_record(running_cluster: ProcessCluster) -> None:
    cluster = running_cluster

    async def scenario() -> None:
        begin = await settled_end(cluster)
        finished = await run("produce", "--server", cluster.addresses, given=b"\n\nthird\n\n")
        assert (finished.status, finished.errors) == (0, "")
        assert await consume_from(cluster, begin) == b"\n\nthird\n\n"

    asyncio.run(scenario())


async def settled_end(cluster: ProcessCluster) -> int:
    end = await cluster.high_watermark(await cluster.leader())
    assert end is not None
    return end


async def consume_from(cluster: ProcessCluster, offset: int) -> bytes:
    finished = await run("consume", "--server", cluster.addresses, "--from", str(offset))
    assert (finished.status, finished.errors) == (0, "")
    return finished.output


def test_an_empty_log_reads_as_nothing_and_an_unknown_offset_is_an_error(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(("n1",))

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        server = cluster["n1"].address
        for start in ("start", "end", "0"):
            finished = await run("consume", "--server", server, "--from", start)
            assert (finished.status, finished.output, finished.errors) == (0, b"", "")
        line = complaint(await run("consume", "--server", server, "--from", "1"), EXIT_FAILED)
        assert "offset 1 is not in [0, 0): read from one that is" in line

        assert (await run("produce", "--server", server, given=b"a\nb\n")).status == 0
        line = complaint(await run("consume", "--server", server, "--from", "7"), EXIT_FAILED)
        assert "offset 7 is not in [0, 2): read from one that is" in line
        usage = await run("consume", "--server", server, "--from", "-1")
        assert "--from" in complaint(usage, EXIT_USAGE)
        await cluster.terminate()

    asyncio.run(scenario())
