"""Frames to train on, kept in the run's folder, where evaluation and a resumed training find them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fenlei.artifact import ROWS, check_free, saving, whole_file
from fenlei.data.frames import is_frame, parts_of, write_frame
from fenlei.errors import ConfigError, DataError


def keep_frames(out: Path, data: Any, options: dict[str, Any], *, resume: bool) -> tuple[Any, dict[str, Any]]:
    """`data` and `options` with a path in place of each frame.

    ConfigError where a DatasetDict brings a part that is given as an option too, ArtifactError where `out` is taken.
    """
    frames = parts_of(data) if is_frame(data) else {}
    if len(frames) > 1:
        twice = [role for role in ("dev", "test") if role in frames and (options.get(role) or options.get(f"{role}_ratio"))]
        if twice:
            raise ConfigError(f"{twice[0]}: the DatasetDict has such a split, and the option asks for another; leave one of them out")
    frames |= {role: options[role] for role in ("dev", "test") if is_frame(options.get(role))}
    if not frames:
        return data, options
    check_free(out, resume=resume)
    paths = {role: _kept(out / ROWS / f"{'train' if role == 'data' else role}.parquet", frame) for role, frame in frames.items()}
    return paths.pop("data", data), {**options, **paths}


def _kept(path: Path, frame: Any) -> Path:
    with saving(path, DataError), whole_file(path, DataError) as temporary:
        write_frame(frame, temporary)
    return path
