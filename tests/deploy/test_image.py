"""The image: small, not root, made of wheels, and what it starts is a command line of the installed program."""

from __future__ import annotations

import fnmatch
import re
import shlex

import pytest

from tests.deploy.containers import DEPLOY, DOCKERFILE, instructions_of, read_image
from tests.deploy.reading import check_command, read_settings

ROOT = DEPLOY.parent
IMAGE = read_image()
STAGES = [rest for name, rest in IMAGE.instructions if name == "FROM"]
IGNORED = DOCKERFILE.with_name(DOCKERFILE.name + ".dockerignore")


def runs() -> list[str]:
    return [rest for name, rest in IMAGE.instructions if name == "RUN"]


def test_nothing_that_only_the_build_needs_is_in_the_image() -> None:
    # Both of one base: the environment is copied, and links to the interpreter that it was made with.
    assert STAGES == ["${BASE} AS build", "${BASE}"]
    last = IMAGE.instructions[IMAGE.instructions.index(("FROM", "${BASE}")) :]
    assert [rest for name, rest in last if name == "COPY"] == [
        "--from=build /opt/distlog /opt/distlog",
        "deploy/docker/health.py /opt/distlog/",
    ]
    assert not any("pip" in rest or "apt-get" in rest for name, rest in last if name == "RUN")


def test_the_base_is_a_release_of_python_that_the_project_takes() -> None:
    ((_, base),) = [each for each in IMAGE.instructions if each[0] == "ARG"]
    (version,) = re.findall(r"^BASE=docker\.io/library/python:(3\.\d+)-slim-bookworm$", base)
    assert f'requires-python = ">={version}"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_only_wheels_are_installed_as_the_makefile_does_it() -> None:
    (install,) = [each for each in runs() if "pip" in each and "install" in each]
    wheels_only = "--only-binary :all: --no-binary pysyncobj"
    assert wheels_only in install
    assert wheels_only in (ROOT / "Makefile").read_text("utf-8")


def test_whatever_is_copied_is_there_and_given_to_the_build() -> None:
    patterns = [line for line in IGNORED.read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    copied = [
        source
        for name, rest in IMAGE.instructions
        if name == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]
    assert "pyproject.toml" in copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source.removeprefix("./"), each[1:]) for each in patterns[1:])


def test_the_user_is_a_number_that_owns_the_data_directory_and_nothing_else() -> None:
    user, _, group = IMAGE.user.partition(":")
    assert user.isdecimal()
    assert int(user) > 0
    (made,) = [each for each in runs() if "useradd" in each]
    data = IMAGE.variables["DISTLOG_DATA_DIR"]
    assert f"install --directory --owner {user} --group {group} --mode 0750 {data}" in made
    assert IMAGE.volumes == [data]
    assert not any("--chown" in rest for name, rest in IMAGE.instructions if name == "COPY")


def test_the_variables_of_the_image_are_settings_and_the_ports_are_those_of_the_settings() -> None:
    config = read_settings(
        IMAGE.run("n1", ["serve", "--advertise", "n1:8400", "--insecure"], IMAGE.variables)
    )
    assert config.data_dir == "/var/lib/distlog"
    addresses = (config.listen, config.peer_listen, config.http_listen)
    assert IMAGE.ports == [str(each.port) for each in addresses if each is not None]
    assert all(each is not None and each.is_wildcard for each in addresses)


def test_an_image_that_is_told_nothing_says_how_it_is_used() -> None:
    ((_, command),) = [each for each in IMAGE.instructions if each[0] == "CMD"]
    assert command == '["--help"]'
    check_command(["--help"], IMAGE.variables)


def test_instructions_are_read_over_several_lines_and_between_comments() -> None:
    text = '# one\nFROM a AS b\nRUN x \\\n    # two\n    && y\n\nCMD ["z"]\n'
    assert instructions_of(text) == [("FROM", "a AS b"), ("RUN", "x && y"), ("CMD", '["z"]')]


@pytest.mark.parametrize("wrong", ["--listn=0.0.0.0:1", "--expect=1", "--join=nowhere"])
def test_a_flag_that_is_not_right_does_not_pass(wrong: str) -> None:
    given = ["serve", "--node-id=n1", "--insecure", "--advertise=n1:8400", wrong]
    with pytest.raises(Exception, match=wrong.partition("=")[0]):
        read_settings(IMAGE.run("n1", given, {}))
