"""What it costs to be looked at: nodes whose metrics are asked for every second, and nodes that trace a part of what they do.

Each way is a cluster of its own, measured in turns with one that nobody looks at: both see the same machine.  Counting cannot be off,
so what the metrics cost is what it costs to show them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.cluster import BenchCluster, running_cluster

SCRAPE_INTERVAL_S, SCRAPE_TIMEOUT_S = 1.0, 5.0
TRACED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to look at nodes."""

    name: str
    is_scraped: bool = False
    # The part of all traces that is recorded and exported; "": none is.
    ratio: str = ""


WAYS = (
    Way("scraped", is_scraped=True),
    Way("traced_1", ratio="0.01"),
    Way("traced_100", ratio="1"),
)


def unwatched(name: str) -> str:
    """Return what the figures of the cluster beside it begin with."""
    return f"beside_{name}"


@contextlib.contextmanager
def observed_cluster(directory: Path, way: Way) -> Iterator[BenchCluster]:
    """Run three nodes that are looked at, and who looks at them."""
    with contextlib.ExitStack() as stack:
        variables = {}
        if way.ratio:
            # Of a part so small there may be none by chance.
            collector = stack.enter_context(collecting(must_come=way.ratio == "1"))
            variables = TRACED | {
                "OTEL_TRACES_SAMPLER_ARG": way.ratio,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            }
        cluster = stack.enter_context(
            running_cluster(directory, variables=variables, with_http=way.is_scraped)
        )
        if way.is_scraped:
            stack.enter_context(scraping(cluster.http_addresses))
        yield cluster


@contextlib.contextmanager
def scraping(addresses: Sequence[str]) -> Iterator[Scraped]:
    """Ask each address for its metrics, every second."""
    scraped = Scraped()
    stopping = threading.Event()

    def scrape() -> None:
        while True:
            for address in addresses:
                try:
                    with urlopen(f"http://{address}/metrics", timeout=SCRAPE_TIMEOUT_S) as answer:
                        scraped.sizes.append(len(answer.read()))
                except (URLError, OSError):
                    scraped.failed_count += 1
            if stopping.wait(SCRAPE_INTERVAL_S):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield scraped
    finally:
        stopping.set()
        thread.join()
        if not scraped.sizes:
            raise SystemExit("no node has shown its metrics: that is no measurement")


@dataclass(slots=True)
class Scraped:
    """What came of it."""

    sizes: list[int] = field(default_factory=list)
    failed_count: int = 0


@contextlib.contextmanager
def collecting(*, must_come: bool) -> Iterator[str]:
    """Take what is exported by OTLP, and yield where; nothing is read of it, as a collector is another machine's work."""
    taken: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            taken.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    if must_come and not taken:
        raise SystemExit("no node has exported a span: that is no measurement")
