"""What a certificate must say for its holder to be a node of this cluster.

A template is KIND:TEXT, in which {node} stands for the node's id: `URI:distlog://node/{node}`, `DNS:{node}.log.example`.  Without
{node} every holder of that name may be any node; ANY asks for no name at all, which is for nodes with an authority of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANY = "any"
NODE = "{node}"
# What begins the subject of a node whose certificate `distlog certs` has made.
NODE_SUBJECT = "distlog://node/"
NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAMES_SHOWN_MAX, NAME_SHOWN_LENGTH_MAX = 5, 100


def peer_name_problem(template: str, names: Sequence[str], node_id: str | None) -> str | None:
    """Say why a certificate with these names does not make its holder the node `node_id`, or any node (None); None: it does.

    names: as `names_of` returns them; (): there was no certificate.
    """
    if template == ANY:
        return None
    has = ", ".join(map(_printable, names[:NAMES_SHOWN_MAX])) or "no name"
    if node_id is None:
        if any(_could_be(template, name) for name in names):
            return None
        return f"the certificate ({has}) is no node's: one must carry {template} (--tls-peer-name); clients use the other port"
    wanted = _folded(template.replace(NODE, node_id))
    if any(_folded(name) == wanted for name in names):
        return None
    return f"the certificate ({has}) does not make it {node_id}: one must carry {template.replace(NODE, node_id)} (--tls-peer-name)"


def _could_be(template: str, name: str) -> bool:
    """Tell whether `name` fits the template with some node id."""
    before, node, after = _folded(template).partition(NODE)
    name = _folded(name)
    if not node:
        return name == before
    if not (name.startswith(before) and name.endswith(after)):
        return False
    return NODE_ID.fullmatch(name[len(before) : len(name) - len(after)]) is not None


def _printable(name: str) -> str:
    """Return a name for one line of a log."""
    shown = "".join(each if each.isprintable() else "?" for each in name)
    return (
        shown if len(shown) <= NAME_SHOWN_LENGTH_MAX else shown[:NAME_SHOWN_LENGTH_MAX] + " [cut]"
    )


def _folded(name: str) -> str:
    """Return a name as it is compared: that of a host is the same in capitals."""
    return name.lower() if name.startswith("DNS:") else name
