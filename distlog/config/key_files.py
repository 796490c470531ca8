"""Files that hold a secret: read once, never shown, and refused when others may read them."""

from __future__ import annotations

import base64
import binascii
import os
import stat

from distlog.errors import ConfigurationInvalid

KEY_SIZE = 32
# Characters of a secret of any kind.
SECRET_LENGTH_MAX = 512


def read_gossip_key(flag: str, path: str) -> str:
    """Return the key in a file, as it stands there: 32 bytes in base64.  Raises ConfigurationInvalid, which names `flag`."""
    text = read_secret(flag, path)
    try:
        size = len(base64.b64decode(text, validate=True))
    except binascii.Error:
        size = 0
    if size != KEY_SIZE:
        raise ConfigurationInvalid(
            flag,
            f"{path} must hold {KEY_SIZE} bytes in base64: make one with `serf keygen`, or `openssl rand -base64 {KEY_SIZE}`",
        )
    return text


def read_secret(flag: str, path: str) -> str:
    """Return the one line of a file that only its owner may read.  Raises ConfigurationInvalid, which names `flag` and not the secret."""
    try:
        with open(path, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(SECRET_LENGTH_MAX + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not plain text"
        raise ConfigurationInvalid(flag, f"{path} cannot be read: {problem}") from None
    if mode & 0o077:
        raise ConfigurationInvalid(
            flag, f"others may read {path} (mode {mode:04o}): chmod 600 {path}"
        )
    if not text or len(text) > SECRET_LENGTH_MAX or not text.isprintable() or " " in text:
        raise ConfigurationInvalid(
            flag, f"{path} must hold one word of at most {SECRET_LENGTH_MAX} characters"
        )
    return text
