"""The compose file: what Compose takes, with commands that the installed program takes."""

from __future__ import annotations

import copy

import pytest

from tests.deploy.containers import (
    COMPOSE,
    DEPLOY,
    compose_commands,
    compose_services,
    read_compose,
    read_image,
)
from tests.deploy.reading import check_command, read_settings
from tests.deploy.schemas import compose_problems, read_yaml

IMAGE = read_image()
NODES = {name: run for name, run in compose_services(IMAGE).items() if run.command[1] == "serve"}


def test_the_file_is_one_that_compose_takes() -> None:
    assert compose_problems(read_compose()) == []


def test_what_compose_does_not_take_is_found() -> None:
    for path, value in ((("services", "n1", "volume"), []), (("services", "n1", "restart"), 1)):
        changed = copy.deepcopy(read_compose())
        changed[path[0]][path[1]][path[2]] = value
        assert len(compose_problems(changed)) == 1
    with pytest.raises(Exception, match="twice"):
        read_yaml("name: a\nname: b\n")


def test_three_nodes_are_started_alike_but_for_their_own_names() -> None:
    assert sorted(NODES) == ["n1", "n2", "n3"]
    for name, run in NODES.items():
        config = read_settings(run)
        assert config.node_id == name
        assert str(config.advertise) == f"{name}:8400"
        assert str(config.peer_advertise) == f"{name}:8401"
        assert [str(each) for each in config.join or ()] == [f"{each}:8400" for each in NODES]
        assert config.expect == len(NODES)
    assert len({str(run).replace(name, "?") for name, run in NODES.items()}) > 1
    assert len({"".join(run.arguments).replace(name, "?") for name, run in NODES.items()}) == 1


def test_every_node_has_a_volume_of_its_own_where_the_image_has_its_data() -> None:
    compose = read_compose()
    mounted = {name: compose["services"][name]["volumes"] for name in NODES}
    assert mounted == {name: [f"{name}:{IMAGE.volumes[0]}"] for name in NODES}
    assert sorted(compose["volumes"]) == sorted(NODES)


def test_nobody_is_root_or_writes_elsewhere_and_no_port_is_published() -> None:
    for service in read_compose()["services"].values():
        assert "user" not in service
        assert "ports" not in service
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert "no-new-privileges:true" in service["security_opt"]


def test_nodes_have_the_health_check_of_the_image_and_a_client_has_none() -> None:
    services = read_compose()["services"]
    assert services["client"]["healthcheck"] == {"disable": True}
    assert IMAGE.health_command
    for name in NODES:
        assert not {"test", "disable"} & services[name]["healthcheck"].keys()


def test_the_image_is_built_from_the_files_of_this_repository() -> None:
    build = read_compose()["services"]["n1"]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == DEPLOY.parent
    assert (context / build["dockerfile"]).is_file()


def test_the_commands_of_its_comments_are_commands() -> None:
    commands = compose_commands()
    assert commands[0][0] == "up"
    client = read_compose()["services"]["client"]
    given = [each[each.index("client") + 1 :] for each in commands if "client" in each]
    assert len(given) == 2
    for arguments in (client["command"], *given):
        check_command(arguments, {**IMAGE.variables, **client["environment"]})
