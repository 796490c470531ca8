"""/status: all that a node knows of itself and of the others, in one look."""

from __future__ import annotations

import logging

from distlog import __version__
from tests.consensus.nodes import NodeCluster
from tests.monitoring.nodes import Monitored, monitored


def test_a_look_at_any_node_shows_the_nodes_and_how_this_one_is() -> None:
    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        await cluster.append(100, 200)
        await cluster.loop.until(lambda: all(node.readyz()[0] == 200 for node in nodes.values()))
        uptime_s = {name: node.status()["uptime_s"] for name, node in nodes.items()}
        await cluster.loop.pass_time(2.0)
        (leader,) = [node for node in nodes.values() if node.place.log.is_leader]
        for name, node in nodes.items():
            leads = node is leader
            node.log.emit(
                logging.LogRecord("distlog.x", logging.WARNING, "p", 1, f"of {name}", (), None)
            )
            shown = node.status()
            assert shown["node_id"] == name
            assert shown["version"] == __version__
            assert shown["role"] == ("leader" if leads else "follower")
            assert shown["state"] == ("leading" if leads else "following")
            assert (shown["ready"], shown["problem"]) == (True, "")
            assert shown["leader_id"] == leader.name
            assert shown["uptime_s"] >= uptime_s[name] + 2.0
            # Who leads knows of each how far it is behind.
            assert {each["node_id"]: each["lag"] for each in shown["members"]} == dict.fromkeys(
                nodes, 0 if leads else None
            )
            assert [each["node_id"] for each in shown["members"] if each["is_leader"]] == [
                leader.name
            ]
            (topic,) = shown["topics"]
            assert (topic["name"], topic["start_offset"], topic["high_watermark"]) == (
                *("default", 0, 2),
            )
            assert topic["size"] > 0
            assert (shown["is_storage_full"], shown["disk_free"] > 0) == (False, True)
            assert [(each["level"], each["text"]) for each in shown["last_problems"]] == [
                ("warning", f"of {name}")
            ]

    monitored(body)
