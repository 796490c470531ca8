"""The chart, as Helm rendered it: what Kubernetes takes, objects that fit together, and commands that the installed program takes."""

from __future__ import annotations

import copy
import json
import re
import shutil
from typing import Any

import pytest

from distlog import __version__
from distlog.config import ServeConfig
from distlog.config.table import VOTER_COUNT_MAX
from distlog.consensus.configuration import MEMBER_COUNT_MAX
from distlog.tracing.asked import asked
from tests.deploy.charts import (
    CASES,
    CHART,
    Case,
    notes_of,
    objects_of,
    read_rendered,
    render,
    rendered_path,
    stamp,
)
from tests.deploy.containers import DEPLOY, pod_runs, read_image
from tests.deploy.reading import check_command, read_settings
from tests.deploy.schemas import kubernetes_problems, read_yaml, values_problems

IMAGE = read_image()
TAKEN = [case for case in CASES if not case.is_refused]
REFUSED = [case for case in CASES if case.is_refused]
each_case = pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.name)


def of_kind(case: Case, kind: str) -> list[Any]:
    return [each for each in objects_of(case) if each["kind"] == kind]


def stateful_set(case: Case) -> Any:
    (found,) = of_kind(case, "StatefulSet")
    return found


def settings_of(case: Case) -> dict[str, ServeConfig]:
    """Return what each pod runs with, by its name."""
    runs = pod_runs(stateful_set(case), IMAGE)
    return {run.name: read_settings(run) for run in runs}


def values() -> Any:
    return read_yaml((CHART / "values.yaml").read_text("utf-8"))


def schema() -> Any:
    return json.loads((CHART / "values.schema.json").read_text("utf-8"))


# --- What was rendered is the chart ---------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_kept_was_rendered_from_the_chart_as_it_is_now(case: Case) -> None:
    first, *_ = rendered_path(case).read_text("utf-8").splitlines()
    assert first == stamp(), "the chart has changed: make chart renders it again, and needs Helm"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_helm_renders_what_is_kept(case: Case) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm here: what it rendered before is tested")
    assert render(helm, case) == read_rendered(case)


# --- Values ---------------------------------------------------------------------------------------


def test_the_values_of_the_chart_are_values_that_it_takes() -> None:
    assert values_problems(schema(), values()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicas", 1),
        ("expect", 16),
        ("replica", 3),
        ("insecure", "yes"),
        ("extraArgs", ["serve"]),
        ("extraEnv", [{"name": "NODE_ID", "value": "another"}]),
        ("extraEnv", [{"name": "OTEL_TRACES_SAMPLER_ARG", "value": 0.01}]),
        ("storage", {"size": "10"}),
        ("tls", {"secretName": "a", "certKey": "../x/y", "keyKey": "b", "caKey": "c"}),
        ("disruptionBudget", {"maxUnavailable": "50%"}),
    ],
)
def test_a_value_that_is_none_is_refused(name: str, value: Any) -> None:
    assert values_problems(schema(), {**values(), name: value}) != []


def test_there_are_no_more_nodes_than_a_cluster_takes() -> None:
    limits = {name: schema()["properties"][name]["maximum"] for name in ("replicas", "expect")}
    assert limits == {"replicas": MEMBER_COUNT_MAX, "expect": VOTER_COUNT_MAX}


def test_every_value_is_used_and_said_to_be_one() -> None:
    templates = "".join(path.read_text("utf-8") for path in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.Values((?:\.\w+)+)", templates))
    for name, value in values().items():
        assert name in schema()["properties"]
        assert any(each == f".{name}" or each.startswith(f".{name}.") for each in used), name
        if isinstance(value, dict) and f".{name}" not in used:
            assert {f".{name}.{key}" for key in value} == {
                each for each in used if each.startswith(f".{name}.")
            }


def test_helm_refuses_what_is_undecided_contradictory_unknown_or_too_few() -> None:
    said = {case.name: read_rendered(case) for case in REFUSED}
    assert "give tls.secretName" in said["refused-undecided"]
    assert "two ways to listen" in said["refused-both"]
    assert "give serviceMonitor.tls.secretName" in said["refused-monitor"]
    assert "replicas must be at least expect" in said["refused-too-few"]
    assert "'replica' not allowed" in said["refused-unknown"]


# --- Objects --------------------------------------------------------------------------------------


@each_case
def test_every_object_is_one_that_kubernetes_takes(case: Case) -> None:
    assert {each["metadata"]["name"]: kubernetes_problems(each) for each in objects_of(case)} == {
        each["metadata"]["name"]: [] for each in objects_of(case)
    }


def test_what_kubernetes_does_not_take_is_found() -> None:
    changed = copy.deepcopy(stateful_set(TAKEN[0]))
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    container["livenessProbe"]["httpGet"]["paht"] = "/livez"
    container["resources"]["limits"]["memory"] = ["2Gi"]
    changed["spec"]["replicas"] = "3"
    assert len(kubernetes_problems(changed)) == 3
    assert kubernetes_problems({"apiVersion": "v1", "kind": "Pot"}) != []


@each_case
def test_services_and_the_budget_find_the_pods(case: Case) -> None:
    labels = stateful_set(case)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [each["spec"]["selector"] for each in of_kind(case, "Service")]
    selectors += [
        each["spec"]["selector"]["matchLabels"]
        for each in objects_of(case)
        if each["kind"] in ("StatefulSet", "PodDisruptionBudget")
    ]
    assert len(selectors) == 5
    assert all(each.items() <= labels for each in selectors)


@each_case
def test_what_a_port_is_called_is_a_port_of_the_container(case: Case) -> None:
    (container,) = stateful_set(case)["spec"]["template"]["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for service in of_kind(case, "Service"):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    (config, *_) = settings_of(case).values()
    assert ports["grpc"] == config.listen.port
    assert ports["peer"] == config.peer_listen.port
    assert config.http_listen is not None
    assert ports["http"] == config.http_listen.port
    scheme = "HTTP" if config.tls_cert is None else "HTTPS"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
        assert container[probe]["httpGet"]["scheme"] == scheme


@each_case
def test_the_name_of_all_nodes_lists_those_that_are_not_ready(case: Case) -> None:
    name = stateful_set(case)["spec"]["serviceName"]
    (service,) = [each for each in of_kind(case, "Service") if each["metadata"]["name"] == name]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


@each_case
def test_all_pods_start_at_once_and_no_eviction_takes_a_majority(case: Case) -> None:
    assert stateful_set(case)["spec"]["podManagementPolicy"] == "Parallel"
    (budget,) = of_kind(case, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


@each_case
def test_a_monitor_finds_the_service_and_shows_a_certificate_where_nodes_want_one(
    case: Case,
) -> None:
    (monitor,) = of_kind(case, "ServiceMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [
        each for each in of_kind(case, "Service") if selector <= each["metadata"]["labels"].items()
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [each["name"] for each in service["spec"]["ports"]]
    if case.name == "everything":
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    rules = (DEPLOY / "prometheus" / "distlog.rules.yml").read_text("utf-8")
    assert set(re.findall(r'job="([^"]*)"', rules)) == {job}
    (config, *_) = settings_of(case).values()
    assert (endpoint["scheme"] == "https") == (config.tls_cert is not None)
    assert ("tlsConfig" in endpoint) == (config.tls_cert is not None)
    secrets = {"tls": "distlog-tls", "everything": "prometheus-tls"}
    if "tlsConfig" in endpoint:
        shown = endpoint["tlsConfig"]
        assert shown["serverName"] == "distlog.default.svc"
        assert shown["cert"]["secret"] == {"name": secrets[case.name], "key": "tls.crt"}
        assert shown["keySecret"] == {"name": secrets[case.name], "key": "tls.key"}
        assert shown["ca"]["secret"] == {"name": secrets[case.name], "key": "ca.crt"}


# --- Pods -----------------------------------------------------------------------------------------


@each_case
def test_a_pod_is_not_root_writes_its_volume_alone_and_is_given_time_to_stop(case: Case) -> None:
    pod = stateful_set(case)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    user, _, group = IMAGE.user.partition(":")
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert (security["runAsUser"], security["fsGroup"]) == (int(user), int(group))
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["terminationGracePeriodSeconds"] >= 10
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert [path for path, each in mounts.items() if not each.get("readOnly")] == IMAGE.volumes


@each_case
def test_pods_differ_by_their_names_alone(case: Case) -> None:
    runs = pod_runs(stateful_set(case), IMAGE)
    assert len(runs) >= 3
    assert len({part for run in runs for part in run.arguments if "--join=" in part}) == 1
    others = [[part for part in run.arguments if "--join=" not in part] for run in runs]
    named = [(run.name, " ".join(rest)) for run, rest in zip(runs, others, strict=True)]
    assert len({rest.replace(name, "?") for name, rest in named}) == 1
    for name, config in settings_of(case).items():
        assert config.node_id == name
        assert config.advertise is not None
        assert config.peer_advertise is not None
        assert config.advertise.host == config.peer_advertise.host
        domain = f"{stateful_set(case)['spec']['serviceName']}.default.svc"
        assert config.advertise.host == f"{name}.{domain}"
        # Those that form the cluster are told to everybody by the names that they advertise.
        first = [f"{each.name}.{domain}:8400" for each in runs[:3]]
        assert [str(each) for each in config.join or ()] == first
        assert config.expect == len(first)
        assert [config.data_dir] == IMAGE.volumes
        assert not config.bootstrap


@each_case
def test_certificates_are_files_of_the_secret(case: Case) -> None:
    pod = stateful_set(case)["spec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    if case.name == "insecure":
        assert mounts.keys() == {"data"}
        assert "volumes" not in pod
    else:
        ((secret),) = [each["secret"] for each in pod["volumes"]]
        assert secret["secretName"] == "distlog-tls"
        assert not secret["defaultMode"] & 0o077
    for name, config in settings_of(case).items():
        assert config.insecure == (case.name == "insecure")
        if not config.insecure:
            names = ("tls.crt", "tls.key", "ca.crt")
            if case.name == "everything":
                names = (f"{name}.pem", f"{name}.key", "ca.pem")
            files = (config.tls_cert, config.tls_key, config.tls_ca)
            assert files == tuple(f"{mounts['tls']}/{each}" for each in names)


@each_case
def test_a_further_flag_is_given_to_every_node(case: Case) -> None:
    wanted = "os" if case.name == "everything" else "fsync"
    assert {config.durability for config in settings_of(case).values()} == {wanted}


@each_case
def test_a_further_variable_is_given_to_every_node(case: Case) -> None:
    found = {
        (wanted.exporter, run.variables.get("OTEL_EXPORTER_OTLP_HEADERS"))
        for run in pod_runs(stateful_set(case), IMAGE)
        for wanted in [asked(run.variables)]
    }
    assert found == {("otlp", "headers=secret") if case.name == "everything" else ("none", None)}


def test_the_chart_is_for_this_version() -> None:
    assert read_yaml((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"] == __version__


@each_case
def test_the_notes_have_a_command_that_works_where_it_is_run(case: Case) -> None:
    ((pod, command),) = re.findall(r"exec (\S+) -- distlog (.*)$", notes_of(case), re.M)
    # As everywhere else in the cluster, the host is one that certificates name.
    host = "distlog.default.svc:8400"
    files = {}
    if not (config := settings_of(case)[pod]).insecure:
        names = {"ca": config.tls_ca, "cert": config.tls_cert, "key": config.tls_key}
        files = {f"--tls-{name}": path for name, path in names.items()}
    given = [f"{flag} {path}" for flag, path in files.items()]
    assert command == " ".join(["cluster status --server", host, *given])
    check_command(command.split(), IMAGE.variables)
    assert ("Nothing is encrypted" in notes_of(case)) == config.insecure
