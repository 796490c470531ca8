"""The chart as Helm renders it: for some values, kept beside the tests, so that they need no Helm.

    python -m tests.deploy.charts      renders them again; needs Helm 3.  `make chart` does it.

Each file begins with what the chart was when it was rendered, so that a test sees when it has changed since.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.schemas import read_documents

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "distlog"
RENDERED = Path(__file__).with_name("rendered")
# Helm alone renders; it asks no cluster, so it must be told what one that it renders for would have.
KUBERNETES_VERSION = "1.34.0"
# The document that holds the notes.
NOTES = "notes"
CERTIFICATES_OF_EACH = (
    "tls.certKey=$(NODE_ID).pem",
    "tls.keyKey=$(NODE_ID).key",
    "tls.caKey=ca.pem",
)


@dataclass(frozen=True, slots=True)
class Case:
    """Some values, as `helm --set` takes them."""

    name: str
    values: tuple[str, ...]
    # Whether Helm must refuse them.
    is_refused: bool = False


CASES = (
    Case("insecure", ("insecure=true", "serviceMonitor.enabled=true")),
    Case("tls", ("tls.secretName=distlog-tls", "serviceMonitor.enabled=true")),
    Case(
        "everything",
        (
            "tls.secretName=distlog-tls",
            *CERTIFICATES_OF_EACH,
            "replicas=5",
            "image.repository=registry.example.com/distlog",
            "image.tag=1.2.3",
            "imagePullSecrets[0].name=registry",
            "extraArgs[0]=--durability=os",
            "extraArgs[1]=--discovery=dns://distlog-nodes.default.svc:8400",
            "extraEnv[0].name=OTEL_EXPORTER_OTLP_ENDPOINT",
            "extraEnv[0].value=http://collector:4318",
            "extraEnv[1].name=OTEL_EXPORTER_OTLP_HEADERS",
            "extraEnv[1].valueFrom.secretKeyRef.name=collector",
            "extraEnv[1].valueFrom.secretKeyRef.key=headers",
            "storage.className=fast",
            "storage.size=100Gi",
            "serviceMonitor.enabled=true",
            "serviceMonitor.labels.release=prometheus",
            "serviceMonitor.tls.secretName=prometheus-tls",
            "serviceMonitor.tls.certKey=tls.crt",
            "serviceMonitor.tls.keyKey=tls.key",
            "serviceMonitor.tls.caKey=ca.crt",
            "podAnnotations.owner=logs",
            "podLabels.team=logs",
            "nodeSelector.disk=nvme",
            "tolerations[0].key=logs",
            "tolerations[0].operator=Exists",
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone",
            "priorityClassName=logs",
        ),
    ),
    Case("refused-undecided", (), is_refused=True),
    Case("refused-both", ("insecure=true", "tls.secretName=distlog-tls"), is_refused=True),
    Case(
        "refused-monitor",
        ("tls.secretName=distlog-tls", *CERTIFICATES_OF_EACH, "serviceMonitor.enabled=true"),
        is_refused=True,
    ),
    Case("refused-too-few", ("insecure=true", "replicas=2"), is_refused=True),
    Case("refused-unknown", ("insecure=true", "replica=3"), is_refused=True),
)


def chart_files() -> list[Path]:
    return sorted(path for path in CHART.rglob("*") if path.is_file())


def stamp() -> str:
    """Return the line that says of what a rendered file is made."""
    digest = hashlib.sha256()
    for path in chart_files():
        for part in (path.relative_to(CHART).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return f"# By Helm from the chart with the digest {digest.hexdigest()}"


def rendered_path(case: Case) -> Path:
    return RENDERED / f"{case.name}.yaml"


def read_rendered(case: Case) -> str:
    """Return what Helm made of a case; of one that is refused, what it said."""
    return rendered_path(case).read_text("utf-8").partition("\n")[2]


def objects_of(case: Case) -> list[Any]:
    """Return what Kubernetes is given."""
    return [each for each in _documents(case) if NOTES not in each]


def notes_of(case: Case) -> str:
    """Return what Helm says to who has installed it."""
    (notes,) = [str(each[NOTES]) for each in _documents(case) if NOTES in each]
    return notes


def _documents(case: Case) -> list[Any]:
    assert not case.is_refused
    return list(read_documents(read_rendered(case)))


def render(helm: str, case: Case) -> str:
    """Have Helm render a case, its notes too.  Fails if it refuses what it must not, or the other way round."""
    with tempfile.TemporaryDirectory() as directory:
        chart = Path(directory, "distlog")
        shutil.copytree(CHART, chart)
        # `helm template` leaves the notes out, and only a cluster would be told them.
        shutil.copy(chart / "templates" / "NOTES.txt", chart)
        text = f'{NOTES}: |\n  {{{{- tpl (.Files.Get "NOTES.txt") . | nindent 2 }}}}\n'
        (chart / "templates" / "notes.yaml").write_text(text, "utf-8")
        done = subprocess.run(
            [helm, *arguments_of(case)], capture_output=True, text=True, check=False, cwd=chart
        )
    assert (done.returncode != 0) == case.is_refused, done.stderr
    if not case.is_refused:
        return done.stdout
    # Where it is said depends on Helm's version.
    return "".join(f"# {line}\n" for line in done.stderr.splitlines() if line.strip())


def arguments_of(case: Case) -> Sequence[str]:
    values = [part for value in case.values for part in ("--set", value)]
    versions = ("--kube-version", KUBERNETES_VERSION)
    return ["template", "distlog", ".", "--namespace", "default", *versions, *values]


def main() -> int:
    helm = shutil.which("helm")
    if helm is None:
        print("there is no helm here: install Helm 3 (go install helm.sh/helm/v3/cmd/helm@v3.22.0)")
        return 1
    RENDERED.mkdir(exist_ok=True)
    for case in CASES:
        rendered_path(case).write_text(f"{stamp()}\n{render(helm, case)}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
