"""What goes wrong between a node and its Serf agent.

None of these reaches a client of the node: the view of the nodes grows old, and the log says why.
"""

from __future__ import annotations

from dataclasses import dataclass

from distlog.errors import DistlogError


@dataclass(eq=False)
class AgentUnreachable(DistlogError):
    """There is no connection to the agent, or none any more.  What was asked for may have been done."""

    reason = "AGENT_UNREACHABLE"
    text = "no Serf agent answers at {address} ({problem}): check that it runs and that this is its RPC address"
    address: str
    problem: str


@dataclass(eq=False)
class AgentSilent(DistlogError):
    """The agent did not answer in time.  What was asked for may have been done, and the connection is as good as before."""

    reason = "AGENT_SILENT"
    text = "the Serf agent at {address} did not answer {command} within {timeout_s} s: it may still do what was asked for"
    address: str
    command: str
    timeout_s: float


@dataclass(eq=False)
class AgentRefused(DistlogError):
    """The agent answered that it does not do that."""

    reason = "AGENT_REFUSED"
    text = "the Serf agent at {address} refused {command}: {problem}"
    address: str
    command: str
    problem: str


@dataclass(eq=False)
class AgentNotAuthenticated(DistlogError):
    """The agent does not know us, or is not the one that we mean."""

    reason = "AGENT_NOT_AUTHENTICATED"
    text = (
        "the Serf agent at {address} does not take the key that it was given: the file of --serf-rpc-auth-file must hold what the "
        "configuration of the agent has as rpc_auth"
    )
    address: str


@dataclass(eq=False)
class AgentAnswerInvalid(DistlogError):
    """Bytes that no agent sends.  The connection is closed."""

    reason = "AGENT_ANSWER_INVALID"
    text = "{address} answered {problem}, as no Serf agent does: check that this is an agent's RPC address, not that of its gossip"
    address: str
    problem: str


@dataclass(eq=False)
class AgentFailed(DistlogError):
    """The agent that this node runs has ended, or does not start."""

    reason = "AGENT_FAILED"
    text = "the Serf agent of this node {problem}: {output} has what it said"
    problem: str
    output: str


@dataclass(eq=False)
class AgentProgramUnusable(DistlogError):
    """There is no agent to run."""

    reason = "AGENT_PROGRAM_UNUSABLE"
    text = (
        "cannot run {program} ({problem}): install Serf (on Debian: apt-get install serf), name the program with --serf-program, "
        "or take another --discovery"
    )
    program: str
    problem: str
