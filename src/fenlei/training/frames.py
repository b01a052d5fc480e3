"""Frames to train on, kept in the run's folder, where evaluation and a resumed training find them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fenlei.artifact import ROWS, check_free, fingerprint, saving, whole_file
from fenlei.config import DataConfig
from fenlei.data.frames import is_frame, parts_of, refuse_rows, write_frame
from fenlei.data.readers import check_labelled
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.training.ranks import alone_in


def keep_frames(
    out: Path, data: Any, options: dict[str, Any], config: DataConfig, *, resume: bool
) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """`data` and `options` with a path in place of each frame, and what is to be said of them. `config` has what `options` does not.

    The test split of a DatasetDict is left out where it has no labels, as in competitions. DataError for rows that are no frame,
    ConfigError where a DatasetDict brings a part that is given as an option too, ArtifactError where `out` is taken, or what is gone on
    with was begun with other rows.
    """
    refuse_rows("data", data)
    brought = parts_of(data) if is_frame(data) else {}
    if len(brought) > 1:
        twice = [role for role in ("dev", "test") if role in brought and (options.get(role) or options.get(f"{role}_ratio"))]
        if twice:
            raise ConfigError(f"{twice[0]}: the DatasetDict has such a split, and the option asks for another; leave one of them out")
    frames = brought | {role: options[role] for role in ("dev", "test") if is_frame(options.get(role))}
    if not frames:
        return data, options, ()
    with alone_in(out):
        check_free(out, resume=resume)
        paths = {
            role: _kept(out / ROWS / f"{'train' if role == 'data' else role}.parquet", frame, resume=resume)
            for role, frame in frames.items()
        }
    unused = _why_unlabelled(paths["test"], options, config) if "test" in brought else None
    notes: tuple[str, ...] = () if unused is None else (f"{paths.pop('test')} is not used: {unused}",)
    return paths.pop("data", data), {**options, **paths}, notes


def _why_unlabelled(test: Path, options: Mapping[str, Any], config: DataConfig) -> str | None:
    text, pair, label = (options.get(name) or getattr(config, name) for name in ("text_column", "pair_column", "label_column"))
    try:
        check_labelled(test, text_column=text, pair_column=pair, label_column=label)
    except DataError as error:
        return str(error)
    return None


def _kept(path: Path, frame: Any, *, resume: bool) -> Path:
    """Where the frame's rows are; those that a training was begun with are not written over by others."""
    with saving(path, DataError), whole_file(path, DataError) as temporary:
        write_frame(frame, temporary)
        if resume and path.is_file() and fingerprint(temporary) != fingerprint(path):
            raise ArtifactError(f"{path}: the training was begun with other rows; resume without the frame, or start in another folder")
    return path
