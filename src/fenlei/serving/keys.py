"""API keys: read from a file or the environment, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from fenlei.errors import ConfigError

VARIABLE = "FENLEI_API_KEYS"
"""Keys joined by commas."""
LEAST_CHARACTERS = 8


class Keys:
    """The keys that open the service; none: it is open."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        short = next((at for at, key in enumerate(keys, 1) if len(key) < LEAST_CHARACTERS), None)
        if short is not None:
            raise ConfigError(
                f"API key {short} has fewer than {LEAST_CHARACTERS} characters; take a longer one, such as `openssl rand -hex 24` gives"
            )
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str]) -> Keys:
        """Those of `file`, one a line (# begins a comment), and of the environment. ConfigError where the file holds none."""
        keys = [key for part in environment.get(VARIABLE, "").split(",") if (key := part.strip())]
        if file is not None:
            try:
                lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file}: the API keys cannot be read ({error})") from error
            found = [line for line in lines if line and not line.startswith("#")]
            if not found:
                raise ConfigError(f"{file}: holds no API key; write one a line")
            keys += found
        return cls(tuple(keys))

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: bytes | None) -> bool:
        """Whether an Authorization header opens the service; takes as long for a near miss as for a far one, and for every key."""
        if not self._digests:
            return True
        scheme, _, given = (authorization or b"").partition(b" ")
        digest = _digest(given.strip())
        found = [hmac.compare_digest(digest, one) for one in self._digests]
        return any(found) and scheme.lower() == b"bearer"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
