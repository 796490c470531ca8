"""What the files in deploy/ would have run, read out of them: the image, the nodes of the compose file, the pods of the chart.

    Dockerfile -> Image        compose.yaml + Image -> [Run]        rendered chart + Image -> [Run]

A `Run` is one command of distlog with the variables that it is given; the tests hold it against the installed program and start it.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.schemas import read_yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
HEALTH = DEPLOY / "docker" / "health.py"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")
# As Kubernetes puts variables into arguments.
POD_VARIABLE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True, slots=True)
class Run:
    """One command line: the program's name first, then what it is given."""

    name: str
    command: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands behind `distlog`.  Fails if it is another program."""
        assert self.command[0] == "distlog", self.command
        return self.command[1:]


@dataclass(slots=True)
class Image:
    """What the last stage of a Dockerfile says."""

    instructions: list[tuple[str, str]]
    variables: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    health_command: list[str] = field(default_factory=list)
    user: str = "root"
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)

    def health(self) -> tuple[str, ...]:
        """Return the command of the health check as it runs here: the script that the image has, by this Python."""
        copied = f"{HEALTH.relative_to(DEPLOY.parent)} /opt/distlog/"
        assert ("COPY", copied) in self.instructions
        assert self.health_command == ["python", f"/opt/distlog/{HEALTH.name}"]
        return sys.executable, str(HEALTH)

    def run(self, name: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Run:
        """Return what a container with these arguments and variables runs."""
        return Run(name, (*self.entrypoint, *arguments), {**self.variables, **variables})


def instructions_of(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with its text on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def read_image(path: Path = DOCKERFILE) -> Image:
    """Read the last stage.  Fails for an instruction that is not known here."""
    instructions = instructions_of(path.read_text("utf-8"))
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    image = Image(instructions)
    for name, rest in instructions[last + 1 :]:
        match name:
            case "ENV":
                for pair in shlex.split(rest):
                    key, _, value = pair.partition("=")
                    image.variables[key] = VARIABLE.sub(_kept_path, value)
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                image.health_command = json.loads(rest.partition("CMD ")[2])
            case "USER":
                image.user = rest
            case "VOLUME":
                image.volumes = json.loads(rest)
            case "EXPOSE":
                image.ports = rest.split()
            case "LABEL" | "RUN" | "COPY" | "CMD" | "STOPSIGNAL":
                pass
            case _:
                raise AssertionError(f"what does {name} mean for a test?")
    return image


def _kept_path(match: re.Match[str]) -> str:
    """Leave the base's own PATH where it stands; nothing else is taken from there."""
    assert match[1] == "PATH", match[0]
    return match[0]


def read_compose() -> Any:
    return read_yaml(COMPOSE.read_text("utf-8"))


def compose_services(image: Image) -> dict[str, Run]:
    """Return what each service of the compose file runs."""
    return {
        name: image.run(name, service["command"], service.get("environment", {}))
        for name, service in read_compose()["services"].items()
    }


def compose_commands() -> list[list[str]]:
    """Return the commands for `docker compose` in the comments at the top of the file, as what follows its name."""
    found = re.findall(r"docker compose --file (\S+) (.*)$", COMPOSE.read_text("utf-8"), re.M)
    assert {path for path, _ in found} == {"deploy/docker/compose.yaml"}
    return [shlex.split(rest) for _, rest in found]


def _value(variable: Mapping[str, Any], pod: Mapping[str, str]) -> str:
    """Return the value of a variable of a pod; one that is in a secret is called by its key."""
    match variable:
        case {"value": str(value)}:
            return value
        case {"valueFrom": {"fieldRef": {"fieldPath": path}}}:
            return pod[path]
        case {"valueFrom": {"secretKeyRef": {"key": key}}}:
            return f"{key}=secret"
    raise AssertionError(variable)


def pod_runs(stateful_set: Mapping[str, Any], image: Image) -> list[Run]:
    """Return what each pod of a StatefulSet runs."""
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    runs = []
    for ordinal in range(stateful_set["spec"]["replicas"]):
        name = f"{stateful_set['metadata']['name']}-{ordinal}"
        pod = {"metadata.name": name}
        variables = {each["name"]: _value(each, pod) for each in container["env"]}
        arguments = [
            POD_VARIABLE.sub(lambda match: variables[match[1]], each)  # noqa: B023 (used at once)
            for each in container["args"]
        ]
        runs.append(image.run(name, arguments, variables))
    return runs
