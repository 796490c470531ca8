"""A policy in a file: what is read, what is refused with the line that is wrong, and that it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.errors import ConfigurationInvalid
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import MODEL
from distlog.security.files import FILE_SIZE_MAX, RealFiles
from distlog.security.policy import Action
from distlog.security.policy_file import PolicyFile

TEXT = """
# who may do what
p, root, *, *
p, alice, orders-*, produce
g,bob,writers
p, writers, "bills", produce

"""


def read(tmp_path: Path, text: str | bytes, model: str = "") -> tuple[PolicyFile, Authorizer]:
    path, model_path = tmp_path / "policy.csv", ""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if model:
        (tmp_path / "model.conf").write_text(model)
        model_path = str(tmp_path / "model.conf")
    file = PolicyFile(RealFiles(), str(path), model_path)
    return file, Authorizer(file.load(), file=str(path))


@pytest.mark.parametrize("model", ["", MODEL])
def test_a_policy_is_read_from_a_file(tmp_path: Path, model: str) -> None:
    _, authorizer = read(tmp_path, TEXT, model)
    assert authorizer.is_allowed("alice", Action.PRODUCE, "orders-1")
    assert authorizer.is_allowed("bob", Action.PRODUCE, "bills")
    assert not authorizer.is_allowed("bob", Action.PRODUCE, "orders-1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("p, root, *, *\np, alice, orders", "line 2: a rule is"),
        ("p, root, *, reed", "line 1: an action is one of"),
        ("\n\np, root, a/b, produce", "line 3: a topic is"),
        ("x, root, *, produce", "line 1: a rule is"),
        ("g, a, b\ng, b, a", "in a circle"),
        ('p, "root, *, *', "line 1"),
        (b"p, \xff, *, *", "no UTF-8"),
        ("p, root, *, *\n" + "# \n" * FILE_SIZE_MAX, "larger than"),
        ("", "has no rule"),
        ("# all are gone\n\n", "has no rule"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_is_wrong(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=problem) as error:
        read(tmp_path, text)
    assert error.value.key == "--acl-policy"
    assert "policy.csv" in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"policy\.csv cannot be read"):
        PolicyFile(RealFiles(), str(tmp_path / "policy.csv")).load()


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    file, authorizer = read(tmp_path, TEXT)
    told: list[None] = []
    authorizer.changed.append(lambda: told.append(None))
    file.refresh(authorizer)
    assert told == []
    (tmp_path / "policy.csv").write_text(TEXT + "p, eve, bills, consume\n")
    file.refresh(authorizer)
    assert told == [None]
    assert authorizer.is_allowed("eve", Action.CONSUME, "bills")


@pytest.mark.parametrize("model", ["", MODEL])
def test_a_model_does_not_make_a_file_without_rules_one_that_allows_everything(
    tmp_path: Path, model: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match="has no rule"):
        read(tmp_path, "", model)


@pytest.mark.parametrize("text", ["p, root", None, "", "# none\n"])
def test_a_broken_or_missing_new_file_keeps_the_old_policy_and_says_so_once(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file, authorizer = read(tmp_path, TEXT)
    path = tmp_path / "policy.csv"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    for _ in range(3):
        file.refresh(authorizer)
    assert authorizer.is_allowed("alice", Action.PRODUCE, "orders-1")
    assert not authorizer.is_allowed("eve", Action.CONSUME, "bills")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "stays what it was" in said[0]
    path.write_text("p, eve, bills, consume\n")
    file.refresh(authorizer)
    assert authorizer.is_allowed("eve", Action.CONSUME, "bills")


def test_a_changed_model_is_read_again(tmp_path: Path) -> None:
    file, authorizer = read(tmp_path, TEXT, MODEL)
    (tmp_path / "model.conf").write_text(MODEL.replace('p.sub == "*"', 'r.sub == "eve"'))
    file.refresh(authorizer)
    assert authorizer.is_allowed("eve", Action.PRODUCE, "orders-1")
