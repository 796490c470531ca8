"""The schemas of those who run what is in deploy/: what they would refuse is said here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

DIRECTORY = Path(__file__).with_name("schema_files")
# "apiVersion kind" -> the definition.
KUBERNETES = {
    "apps/v1 StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
    "v1 Service": "io.k8s.api.core.v1.Service",
    "policy/v1 PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
}
# The kind is that of the Prometheus operator, and its schema is not here: these are the fields of it that we know.
SERVICE_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "endpoints"],
            "properties": {
                "selector": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"},
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port", "path", "interval"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}


@cache
def _read(name: str) -> Any:
    return json.loads((DIRECTORY / name).read_text("utf-8"))


def _problems(schema: Any, value: Any) -> list[str]:
    """Return what is wrong, each with where it is."""
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.check_schema(schema)
    return sorted(f"{each.json_path}: {each.message}" for each in validator.iter_errors(value))


def compose_problems(value: Any) -> list[str]:
    """Return what Compose would say against a file."""
    return _problems(_read("compose.json"), value)


def kubernetes_problems(value: Mapping[str, Any]) -> list[str]:
    """Return what Kubernetes, or the Prometheus operator, would say against an object."""
    kind = f"{value.get('apiVersion')} {value.get('kind')}"
    definitions = _read("kubernetes.json")
    if kind == "monitoring.coreos.com/v1 ServiceMonitor":
        return _problems({**definitions, **SERVICE_MONITOR}, value)
    if kind not in KUBERNETES:
        return [f"$: there is no schema for {kind}"]
    return _problems({**definitions, "$ref": f"#/$defs/{KUBERNETES[kind]}"}, value)


def values_problems(schema: Any, values: Any) -> list[str]:
    """Return what Helm would say against the values of a chart with this schema."""
    return _problems(schema, values)


class _UniqueLoader(yaml.SafeLoader):
    """YAML, in which a key that stands twice is a mistake and not the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if isinstance(key, str) and keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"stands twice: {sorted(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Return the one document of a text.  Raises yaml.YAMLError, also for a key that stands twice."""
    (document,) = read_documents(text)
    return document


def read_documents(text: str) -> Iterator[Any]:
    """Yield every document of a text that is not empty."""
    # Of a loader that makes texts, numbers, lists and mappings only.
    for document in yaml.load_all(text, Loader=_UniqueLoader):
        if document is not None:
            yield document
