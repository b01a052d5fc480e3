"""YAML of a few hundred characters that is 10^9 words where it is written out."""

from __future__ import annotations

ENDLESS = ", ".join(
    f"&{name} [{', '.join([f'*{before}' if before != '-' else 'x'] * 10)}]" for before, name in zip("-abcdefgh", "abcdefghi", strict=True)
)
"""Inside of a list; each of its lists has the one before ten times."""
