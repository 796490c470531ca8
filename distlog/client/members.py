"""Who the members of a cluster are, as one of its nodes says: for whoever wants to become one."""

from __future__ import annotations

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import read_error, write_error
from distlog.client.routing import ASK_TIMEOUT_S, Node
from distlog.discovery.view import Description
from distlog.errors import Unreachable

CHANGE_TIMEOUT_S = 5.0


async def members_at(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> dict[str, str]:
    """Ask the node at `address` (for clients) once: return the address for peers of each member, by node id; "" if it is not known.

    Raises Unreachable, and what the node refuses with.
    """
    answer = await _asked(address, credentials)
    return {member.node_id: member.peer_address for member in answer.members}


async def node_at(
    address: str, credentials: grpc.ChannelCredentials | None = None, known_as: str = ""
) -> tuple[Description, int]:
    """Ask the node at `address` (for clients) once: return what it says of itself, and which run of it answered.

    known_as: the host that its certificate must name; "": that of the address.

    Raises Unreachable, also if it has not told, and what the node refuses with.
    """
    answer = await _asked(address, credentials, known_as)
    if not answer.HasField("answering"):
        raise Unreachable(addresses=address, problem="it does not say yet who it is")
    node = answer.answering
    description = Description(
        node_id=node.node_id,
        directory_id=node.directory_id,
        peer_address=node.peer_address,
        client_address=node.client_address,
        cluster_id=node.cluster_id,
        expect=node.expect,
        version=node.version,
    )
    return description, node.run


async def remove_member_at(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    cluster_id: str,
    node_id: str,
    directory_id: str,
) -> None:
    """Ask the node at `address` (for clients), which leads, once: return when this very member of this cluster is removed.

    Raises Unreachable, and what it refuses with; OutcomeUnknown if the member may be removed.
    """
    node = Node(address, credentials)
    request = log_pb2.RemoveMemberRequest(
        node_id=node_id, cluster_id=cluster_id, directory_id=directory_id
    )
    try:
        await node.cluster.RemoveMember(request, timeout=CHANGE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise write_error(error, address) from None
    finally:
        await node.close()


async def _asked(
    address: str, credentials: grpc.ChannelCredentials | None, known_as: str = ""
) -> log_pb2.MembersResponse:
    node = Node(address, credentials, known_as)
    try:
        answer = await node.cluster.Members(log_pb2.MembersRequest(), timeout=ASK_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise read_error(error, address) from None
    finally:
        await node.close()
    assert isinstance(answer, log_pb2.MembersResponse)
    return answer
