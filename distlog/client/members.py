"""Who the members of a cluster are, as one of its nodes says: for whoever wants to become one."""

from __future__ import annotations

import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import read_error
from distlog.client.routing import ASK_TIMEOUT_S, Node


async def members_at(address: str) -> dict[str, str]:
    """Ask the node at `address` (for clients) once: return the address for peers of each member, by node id; "" if it is not known.

    Raises Unreachable, and what the node refuses with.
    """
    node = Node(address)
    try:
        answer = await node.cluster.Members(log_pb2.MembersRequest(), timeout=ASK_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise read_error(error, address) from None
    finally:
        await node.close()
    return {member.node_id: member.peer_address for member in answer.members}
