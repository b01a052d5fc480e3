"""What the service takes on, and for how long: every bound and its default."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

from fenlei.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds of one server process. ConfigError for a value that cannot work."""

    max_queue: int = 1024
    """Texts that wait for the model; a request that would make it more is refused (429)."""
    max_texts: int = 128
    """Texts a request (422)."""
    max_characters: int = 100_000
    """Characters a text (413). What the model does not read of it is cut and counted."""
    max_labels: int = 1000
    """Labels a request may ask among, all its texts together (422)."""
    max_body: int = 4_194_304
    """Bytes a request's body (413)."""
    timeout: float = 30.0
    """Seconds from a request's arrival to its answer (504)."""
    read_timeout: float = 10.0
    """Seconds that a request's head, and again its body, may take to arrive (408)."""
    window: float = 0.005
    """Seconds that the model waits for company while requests come several at a time; a lone request never waits."""
    batch_tokens: int | None = None
    """Tokens a forward pass, with padding; None: by the device."""
    drain: float = 60.0
    """Seconds that requests in flight get when the service is told to end."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            waits = one.name in ("window", "drain")
            least = 0.0 if waits else 1e-3 if isinstance(one.default, float) else 1
            if value is not None and not value >= least:
                raise ConfigError(f"{one.name} is {value}, expected at least {least:g}")
            if waits and value > threading.TIMEOUT_MAX:  # no thread can wait for `inf`
                raise ConfigError(f"{one.name} is {value}, expected a number of seconds")
        if self.max_texts > self.max_queue:
            raise ConfigError(
                f"max_texts {self.max_texts} is more than max_queue {self.max_queue}: such a request could never wait; lower it"
            )
