"""What an operator decides about the Serf agent."""

from __future__ import annotations

from dataclasses import dataclass

PORT = 7946


@dataclass(frozen=True, slots=True)
class SerfOptions:
    """Secrets are in here, and are not shown."""

    # Of an agent that the node starts: the program, where other agents reach it, and the key of the gossip in base64, "" for none.
    program: str = "serf"
    listen: tuple[str, int] = ("127.0.0.1", PORT)
    encrypt_key: str = ""
    # Of one that somebody else runs: what its RPC asks for, "" for nothing.
    rpc_auth: str = ""
    # Where other agents are in the gossip, as HOST:PORT.
    join: tuple[str, ...] = ()

    def __repr__(self) -> str:
        host, port = self.listen
        return f"SerfOptions({self.program} at {host}:{port}, joins {', '.join(self.join)})"
