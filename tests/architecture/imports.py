"""Which module may import which: the table, and the function that holds the source against it.

Imports point down only.  The table goes from the bottom up; the longest name that fits a module decides.  It also says
which libraries a layer may see, because what is absent from a layer is most of what makes it a layer.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layer:
    """One row: a module or package, and what its files may import beside the standard library and themselves."""

    name: str
    # Modules or packages of distlog; naming a package allows all that is in it.
    below: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    # Parts of the standard library that this layer does without.
    never: tuple[str, ...] = ()


NO_LOOP = ("asyncio", "concurrent", "socket", "threading")
VALUES = ("distlog.errors", "distlog.block", "distlog.addresses")
CONSENSUS = (
    *VALUES,
    "distlog.measures",
    "distlog.runtime",
    "distlog.storage",
    "distlog.peer",
    "distlog.security.policy",
    "distlog.tracing.spans",
)
GRPC = ("grpc", "google.protobuf", "google.rpc")

LAYERS = (
    Layer("distlog", never=NO_LOOP),
    Layer("distlog.error_class", never=NO_LOOP),
    Layer("distlog.errors", ("distlog.error_class",), never=NO_LOOP),
    # Counts and distributions, to be kept where they are measured.
    Layer("distlog.measures", never=NO_LOOP),
    # What is called to have something traced: every layer may, and records nothing unless it is told otherwise.
    Layer("distlog.tracing", never=NO_LOOP),
    # The API of OpenTelemetry; and the SDK, an extra that only a process which exports traces loads.
    Layer(
        "distlog.tracing.recording",
        ("distlog.tracing",),
        ("opentelemetry.context", "opentelemetry.trace"),
        NO_LOOP,
    ),
    Layer(
        "distlog.tracing.export_queue",
        ("distlog.runtime", "distlog.tracing"),
        ("opentelemetry.context", "opentelemetry.sdk"),
    ),
    Layer(
        "distlog.tracing.exporting",
        ("distlog.runtime", "distlog.tracing"),
        ("opentelemetry.sdk", "opentelemetry.exporter"),
        NO_LOOP,
    ),
    Layer("distlog.tracing.process", ("distlog.runtime", "distlog.tracing"), (), NO_LOOP),
    # The log of the process.
    Layer("distlog.logs", ("distlog.tracing.spans",), never=NO_LOOP),
    Layer("distlog.addresses", never=NO_LOOP),
    Layer("distlog.block", ("distlog.errors",), ("numpy", "google_crc32c"), NO_LOOP),
    Layer("distlog.runtime", ("distlog.storage",)),
    Layer("distlog.programs", ("distlog.errors",)),
    # The wire: both the server and the client stand on it, and neither on the other.
    Layer("distlog.api", ("distlog.errors",), GRPC, NO_LOOP),
    # Files.  No event loop: a caller decides which thread runs it.
    Layer("distlog.storage", VALUES, ("numpy",), NO_LOOP),
    # What checks gigabytes computes checksums where the bytes are, without a copy.
    *(
        Layer(name, (*VALUES, "distlog.storage"), ("numpy", "google_crc32c"), NO_LOOP)
        for name in (
            "distlog.storage.segment_scan",
            "distlog.storage.table_scan",
            "distlog.storage.listing",
        )
    ),
    # Who somebody is.  What it learns from a certificate is text; gRPC and ssl only carry what it has read.
    Layer("distlog.security", ("distlog.errors", "distlog.runtime"), ("cryptography", "grpc")),
    Layer("distlog.security.subject", never=NO_LOOP),
    # Who may do what: a value that is replicated, and Casbin, which decides by it.
    Layer("distlog.security.policy", ("distlog.errors", "distlog.security.subject"), (), NO_LOOP),
    Layer("distlog.security.policy_rows", ("distlog.errors",), (), NO_LOOP),
    Layer(
        "distlog.security.deciding",
        ("distlog.errors", "distlog.security.policy"),
        ("casbin",),
        NO_LOOP,
    ),
    Layer(
        "distlog.security.policy_file",
        (
            "distlog.errors",
            "distlog.security.authorizer",
            "distlog.security.deciding",
            "distlog.security.files",
            "distlog.security.policy",
            "distlog.security.policy_rows",
        ),
        (),
        NO_LOOP,
    ),
    Layer("distlog.security.audit", ("distlog.runtime",)),
    Layer("distlog.security.rotated_file", ("distlog.errors",), never=NO_LOOP),
    Layer(
        "distlog.security.authorizer",
        ("distlog.errors", "distlog.security.policy", "distlog.security.deciding"),
        (),
        NO_LOOP,
    ),
    # Connections between nodes.  Knows nothing of Raft or of files.
    Layer(
        "distlog.peer",
        ("distlog.errors", "distlog.block", "distlog.runtime"),
        ("msgspec", "google_crc32c"),
    ),
    # Views of the nodes.  Knows nothing of Raft, files or gRPC.
    Layer(
        "distlog.discovery",
        ("distlog.errors", "distlog.addresses", "distlog.runtime"),
        ("msgspec",),
    ),
    # One backend: the agent of Serf, another program.
    Layer(
        "distlog.discovery.serf",
        (
            "distlog.errors",
            "distlog.addresses",
            "distlog.runtime",
            "distlog.programs",
            "distlog.discovery",
        ),
        ("msgpack", "msgspec"),
    ),
    # The protocol, the journal and the state machine are sync; these modules drive them from the event loop.
    Layer("distlog.consensus", CONSENSUS, ("msgspec", "numpy", "google_crc32c"), NO_LOOP),
    Layer("distlog.consensus.group", (*CONSENSUS, "distlog.consensus")),
    Layer("distlog.consensus.checkpoints", (*CONSENSUS, "distlog.consensus")),
    Layer("distlog.consensus.journal_sync", (*CONSENSUS, "distlog.consensus")),
    Layer("distlog.consensus.reads", ("distlog.errors", "distlog.runtime", "distlog.consensus")),
    Layer("distlog.consensus.transfer", ("distlog.errors", "distlog.consensus")),
    Layer(
        "distlog.consensus.membership",
        ("distlog.errors", "distlog.runtime", "distlog.discovery.view", "distlog.consensus"),
    ),
    # What is done about the members is a pure function of what is known of them.
    Layer(
        "distlog.consensus.reconcile",
        ("distlog.discovery.view", "distlog.consensus.configuration"),
        (),
        NO_LOOP,
    ),
    Layer("distlog.consensus.node_status", (*CONSENSUS, "distlog.consensus")),
    Layer("distlog.consensus.tails", ("distlog.errors",)),
    Layer("distlog.consensus.proposals", (*CONSENSUS, "distlog.consensus")),
    Layer("distlog.consensus.replicated_log", (*CONSENSUS, "distlog.consensus")),
    # The rules around the library are pure: messages in, messages out.
    Layer(
        "distlog.consensus.rules",
        ("distlog.errors", "distlog.consensus.messages", "distlog.consensus.configuration"),
        ("msgspec",),
        NO_LOOP,
    ),
    # The one module that sees the library.
    Layer(
        "distlog.consensus.library",
        ("distlog.errors", "distlog.runtime", "distlog.consensus"),
        ("pysyncobj",),
        NO_LOOP,
    ),
    # The replicated log is the one door to consensus, with the values that go through it; files and peers are behind it.
    Layer(
        "distlog.server",
        (
            *VALUES,
            "distlog.measures",
            "distlog.runtime",
            "distlog.api",
            "distlog.consensus.commands",
            "distlog.consensus.replicated_log",
            "distlog.consensus.results",
            "distlog.consensus.views",
            # What this node says of itself.
            "distlog.discovery.view",
            "distlog.security.audit",
            "distlog.security.authorizer",
            "distlog.security.certificates",
            "distlog.security.deciding",
            "distlog.security.files",
            "distlog.security.peer_name",
            "distlog.security.policy",
            "distlog.security.policy_file",
            "distlog.security.subject",
            "distlog.tracing.spans",
        ),
        (*GRPC, "grpc_health", "grpc_reflection", "grpc_status"),
    ),
    # Copying files between nodes: above consensus, whose state is copied, and below the node.
    Layer("distlog.catch_up", (*CONSENSUS, "distlog.consensus"), ("msgspec", "google_crc32c")),
    Layer(
        "distlog.client",
        (*VALUES, "distlog.runtime", "distlog.api", "distlog.tracing.spans"),
        # The latter as a type.
        (*GRPC, "opentelemetry.trace"),
    ),
    # Only whoever records traces loads what does.
    Layer(
        "distlog.client.traced",
        ("distlog.errors", "distlog.client", "distlog.tracing"),
        ("grpc", "opentelemetry.trace"),
    ),
    # Only whoever has certificates loads what reads them.
    Layer(
        "distlog.client.tls", ("distlog.errors", "distlog.runtime", "distlog.security"), ("grpc",)
    ),
    # What a node asks another one as a client.
    Layer(
        "distlog.client.members",
        ("distlog.errors", "distlog.api", "distlog.client", "distlog.discovery.view"),
        GRPC,
    ),
    Layer("distlog.config", ("distlog.errors", "distlog.addresses", "distlog.discovery.backend")),
    # The composition root of everything but gRPC and the process: on ports only, so the simulation runs it.
    Layer("distlog.membership.joining", ("distlog.errors", "distlog.addresses", "distlog.peer")),
    Layer(
        "distlog.membership.meeting",
        ("distlog.errors", "distlog.addresses", "distlog.peer", "distlog.discovery.view"),
    ),
    *(
        Layer(
            name,
            (
                *CONSENSUS,
                "distlog.consensus",
                "distlog.catch_up",
                "distlog.discovery",
                "distlog.programs",
                "distlog.membership.joining",
                *above,
            ),
        )
        for name, above in (
            ("distlog.node_settings", ()),
            ("distlog.membership", ("distlog.node_settings",)),
            ("distlog.node", ("distlog.node_settings", "distlog.membership")),
        )
    ),
    # What machines ask a node: it looks into all of it, and nothing of it looks back.
    Layer(
        "distlog.monitoring",
        (
            *CONSENSUS,
            "distlog.consensus",
            "distlog.catch_up",
            "distlog.discovery",
            "distlog.server",
            "distlog.logs",
            "distlog.node",
            "distlog.tracing.counts",
        ),
        ("prometheus_client",),
    ),
    Layer("distlog.monitoring.metrics", never=NO_LOOP),
    Layer("distlog.monitoring.http", ("distlog.errors", "distlog.runtime"), ("h11",)),
    # A node as a process: the one place that sees every layer of it.
    Layer(
        "distlog.serve",
        (
            *CONSENSUS,
            "distlog.logs",
            "distlog.monitoring",
            "distlog.consensus",
            "distlog.catch_up",
            "distlog.server",
            # For a node that joins, which is a client of the members before it is one of them.
            "distlog.client.members",
            "distlog.config",
            "distlog.discovery",
            "distlog.programs",
            "distlog.node",
            "distlog.node_settings",
            "distlog.security",
            "distlog.tracing.process",
        ),
        ("uvloop", "grpc"),
    ),
    Layer(
        "distlog.cli",
        (*VALUES, "distlog.runtime", "distlog.api", "distlog.client", "distlog.config"),
        # As a type.
        ("grpc",),
    ),
    # Sets what libraries read when they are loaded.
    Layer(
        "distlog.cli.main",
        ("distlog.errors", "distlog.config", "distlog.security.ciphers", "distlog.cli"),
    ),
    Layer(
        "distlog.cli.certs", ("distlog.errors", "distlog.security", "distlog.config", "distlog.cli")
    ),
    Layer(
        "distlog.cli.serve", ("distlog.errors", "distlog.config", "distlog.serve", "distlog.cli")
    ),
    # Reads the same files as a node.
    Layer(
        "distlog.cli.acl",
        ("distlog.errors", "distlog.client", "distlog.security.policy_rows", "distlog.cli"),
    ),
    Layer("distlog.cli.bench_plot", ("distlog.errors", "distlog.cli"), ("matplotlib",)),
    # What looks at the files of a node that does not run, and makes those of one that never did.
    *(
        Layer(
            f"distlog.cli.{name}",
            (*VALUES, "distlog.storage", "distlog.consensus", "distlog.config", "distlog.cli"),
        )
        for name in (
            "stopped_node",
            "journal_listing",
            "member_listing",
            "producer_rows",
            "inspect",
            "inspect_json",
            "inspect_lines",
            "verify",
            "remedies",
            "import_seed",
        )
    ),
    # What changes the files of a node that does not run.
    *(
        Layer(
            f"distlog.cli.{name}",
            (
                *VALUES,
                "distlog.storage",
                "distlog.consensus",
                "distlog.catch_up",
                "distlog.config",
                "distlog.cli",
            ),
        )
        for name in ("rejoin", "recover")
    ),
    Layer(
        "distlog.cli.journal_survey",
        (*VALUES, "distlog.storage", "distlog.consensus", "distlog.cli"),
        ("numpy",),
    ),
    # Records with a key are messages of the API, also on the disk.
    Layer(
        "distlog.cli.stored_records",
        (*VALUES, "distlog.storage", "distlog.api", "distlog.cli"),
        ("numpy", "google.protobuf"),
    ),
    Layer("distlog.__main__", ("distlog.cli.main",)),
)


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """One import statement of `importer`, resolved to the full name of what it brings in."""

    importer: str
    line: int
    name: str


def violations(source_root: Path, layers: tuple[Layer, ...] = LAYERS) -> list[str]:
    """Return one sentence for each import below `source_root`/distlog that the table does not allow."""
    found = []
    modules = dict(modules_of(source_root))
    for module, path in modules.items():
        layer = layer_of(module, layers)
        if layer is None:
            found.append(
                f"{module} is in no layer: add it to the table, and say what it may import"
            )
            continue
        for item in sorted(set(imports_of(module, path, set(modules)))):
            if problem := problem_of(item, layer):
                found.append(
                    f"{path.relative_to(source_root)}:{item.line} imports {item.name}: {problem}"
                )
    return found


def modules_of(source_root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the full name and the path of every module of the package."""
    for path in sorted(source_root.glob("distlog/**/*.py")):
        parts = path.relative_to(source_root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def layer_of(module: str, layers: tuple[Layer, ...]) -> Layer | None:
    """Return the row with the longest name that fits.  The top package fits only itself: a new module needs a row."""
    rows = [layer for layer in layers if is_within(module, layer.name)]
    rows = [layer for layer in rows if layer.name != "distlog" or module == "distlog"]
    return max(rows, key=lambda layer: len(layer.name), default=None)


def imports_of(module: str, path: Path, modules: set[str]) -> Iterator[Import]:
    """Yield every import of a file, wherever it stands: also under TYPE_CHECKING and inside functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            source = resolve(node, package)
            for alias in node.names:
                # `from package import module` brings in the module; `from module import name` the module that has it.
                full = f"{source}.{alias.name}"
                is_library_part = not is_within(source, "distlog") and "." not in source
                yield Import(
                    module, node.lineno, full if full in modules or is_library_part else source
                )


def resolve(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name that a `from` import starts at."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def problem_of(item: Import, layer: Layer) -> str | None:
    """Return why `item` is not allowed in `layer`, or None."""
    top = item.name.partition(".")[0]
    if top == "distlog":
        # Inside a package of one row everything may see everything; a row of its own narrows that.
        own = item.name != "distlog" and is_within(item.name, layer.name)
        version = item.name == "distlog"
        if own or version or any(is_within(item.name, name) for name in layer.below):
            return None
        return f"{layer.name} may import {', '.join(layer.below) or 'nothing of distlog'}"
    if top in sys.stdlib_module_names:
        return f"{layer.name} does without {top}" if top in layer.never else None
    if any(is_within(item.name, library) for library in layer.libraries):
        return None
    return f"{layer.name} may see the libraries {', '.join(layer.libraries) or '(none)'}"


def is_within(name: str, package: str) -> bool:
    """Tell whether `name` is `package` or something in it."""
    return name == package or name.startswith(package + ".")
