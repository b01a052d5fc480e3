"""Frames to train on, kept in the run's folder, where evaluation and a resumed training find them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fenlei.artifact import ROWS, check_free, fingerprint, saving, whole_file
from fenlei.data.frames import is_frame, parts_of, write_frame
from fenlei.errors import ArtifactError, ConfigError, DataError


def keep_frames(out: Path, data: Any, options: dict[str, Any], *, resume: bool) -> tuple[Any, dict[str, Any]]:
    """`data` and `options` with a path in place of each frame.

    ConfigError where a DatasetDict brings a part that is given as an option too, ArtifactError where `out` is taken, or what is gone on
    with was begun with other rows.
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
    paths = {
        role: _kept(out / ROWS / f"{'train' if role == 'data' else role}.parquet", frame, resume=resume) for role, frame in frames.items()
    }
    return paths.pop("data", data), {**options, **paths}


def _kept(path: Path, frame: Any, *, resume: bool) -> Path:
    """Where the frame's rows are; those that a training was begun with are not written over by others."""
    with saving(path, DataError), whole_file(path, DataError) as temporary:
        write_frame(frame, temporary)
        if resume and path.is_file() and fingerprint(temporary) != fingerprint(path):
            raise ArtifactError(f"{path}: the training was begun with other rows; resume without the frame, or start in another folder")
    return path
