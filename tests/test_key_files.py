"""Files with secrets: what is read from them, and that a mistake is said without the secret."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from distlog.config.key_files import KEY_SIZE, read_gossip_key, read_secret
from distlog.errors import ConfigurationInvalid

KEY = base64.b64encode(bytes(range(KEY_SIZE))).decode()


def write(path: Path, content: bytes, mode: int = 0o600) -> str:
    file = path / "key"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def test_a_key_is_read_as_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, KEY.encode() + b"\n")
    assert read_gossip_key("--serf-key-file", path) == KEY
    assert read_secret("--serf-rpc-auth-file", path) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, KEY.encode(), mode)
    with pytest.raises(ConfigurationInvalid, match=f"--serf-key-file: .*chmod 600 {path}") as error:
        read_gossip_key("--serf-key-file", path)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"secret", b"c2VjcmV0", KEY.encode() + b"A", base64.b64encode(bytes(16))]
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationInvalid, match="serf keygen") as error:
        read_gossip_key("--serf-key-file", write(tmp_path, content))
    assert content.decode() not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", b"a\x00b", b"a" * 513])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationInvalid, match="--flag"):
        read_secret("--flag", write(tmp_path, content))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="cannot be read: No such file"):
        read_secret("--flag", str(tmp_path / "none"))
