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
KEY_OF_SECRET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "key"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "key": {"type": "string", "minLength": 1},
    },
}
SECRET = {
    "type": "object",
    "additionalProperties": False,
    "required": ["secret"],
    "properties": {"secret": KEY_OF_SECRET},
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
                "jobLabel": {"type": "string"},
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
                            "scheme": {"enum": ["http", "https"]},
                            "tlsConfig": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "serverName": {"type": "string"},
                                    "ca": SECRET,
                                    "cert": SECRET,
                                    "keySecret": KEY_OF_SECRET,
                                },
                            },
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


def _validator(schema: Any) -> Any:
    """Return what holds values against a schema.  Raises SchemaError if it is none."""
    made = jsonschema.validators.validator_for(schema)
    made.check_schema(schema)
    return made(schema)


def _problems(validator: Any, value: Any) -> list[str]:
    """Return what is wrong, each with where it is."""
    return sorted(f"{each.json_path}: {each.message}" for each in validator.iter_errors(value))


@cache
def _compose() -> Any:
    return _validator(_read("compose.json"))


@cache
def _kubernetes() -> Any:
    """Return what knows all definitions, and holds a value against none of them yet."""
    return _validator({**_read("kubernetes.json")})


def compose_problems(value: Any) -> list[str]:
    """Return what Compose would say against a file."""
    return _problems(_compose(), value)


def kubernetes_problems(value: Mapping[str, Any]) -> list[str]:
    """Return what Kubernetes, or the Prometheus operator, would say against an object."""
    kind = f"{value.get('apiVersion')} {value.get('kind')}"
    if kind == "monitoring.coreos.com/v1 ServiceMonitor":
        schema: Any = SERVICE_MONITOR
    elif kind in KUBERNETES:
        schema = {"$ref": f"#/$defs/{KUBERNETES[kind]}"}
    else:
        return [f"$: there is no schema for {kind}"]
    definitions = _kubernetes().schema["$defs"]
    return _problems(_kubernetes().evolve(schema={**schema, "$defs": definitions}), value)


def values_problems(schema: Any, values: Any) -> list[str]:
    """Return what Helm would say against the values of a chart with this schema."""
    return _problems(_validator(schema), values)


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
