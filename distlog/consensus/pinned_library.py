"""Which pysyncobj the rules were proven with, to the byte.

The rules correct what one version does wrong, by its private names: another version, or a copy that somebody has mended, may do the
wrong thing elsewhere.  tests/consensus/contract says what changed when another one is tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from distlog.errors import LibraryUnsuitable

VERSION = "0.3.17"
# SHA-256 of each module that runs in a node, as published.  Sockets, files and journals of the library are imported and not used.
SHA256 = {
    "syncobj": "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    "serializer": "4d39fde2f15000ad8f507ec229ebd4f6a86371b6f84d4dc1439a9cccd52857ee",
    "journal": "9cf1eaf6acc704581a4cf7d3de330a404403913107adc91c929778b7e3f35edf",
    "transport": "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
    "node": "e4a3f027cd8291f558334bb9c977e952f6b6989e7e1fa1588d3005ef0b990e2c",
    "config": "fbbc7ff9f18e4d15a7fd563376e42f5bd192956879d4b810b056d5248b955698",
    "fast_queue": "8477fe5fdf36d9766df933310d3d66ee953d1afc195b1e6482b3a1498fc517bd",
    "poller": "f69ac749fb410670282fd9520c5805ffc684c8a5f762a927127753d9be8551e6",
    "dns_resolver": "4b88da2b45e20fbb299fb7a21f2595369b6314700b687fb8858891999bce14e0",
    "pickle": "e9327780738065cec5d600484b936c91e7c13875206cb584d5ff7f5d0dc9c474",
    "monotonic": "d116df70e1f81bcab1fb89191fe2fe18486bc25187401d73fd6101cfe686e0a3",
    "version": "0b8426a8b52ecf874193897d26c4214acbd85335145ea9ff17e27a22b1132943",
}


def check_library(version: str, read: Callable[[str], bytes]) -> None:
    """Hold an installed pysyncobj against the pinned one.  read(name) returns the source of a module.

    Raises LibraryUnsuitable, which says what to install.
    """
    if version != VERSION:
        raise _unsuitable(f"version {version} is installed")
    for name, expected in SHA256.items():
        try:
            found = hashlib.sha256(read(name)).hexdigest()
        except OSError as error:
            raise _unsuitable(f"its source {name}.py cannot be read ({error})") from error
        if found != expected:
            raise _unsuitable(f"its {name}.py is not the published one (sha256 {found})")


def _unsuitable(problem: str) -> LibraryUnsuitable:
    install = f"pip install --force-reinstall --no-binary pysyncobj pysyncobj=={VERSION}"
    return LibraryUnsuitable(library=f"pysyncobj {VERSION}", problem=problem, install=install)
