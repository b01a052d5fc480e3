"""ModelScope, through modelscope_hub, its own client: MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE and MODELSCOPE_API_TOKEN are read by it.

It resumes broken downloads and compares checksums. What it does not know is whether a folder of its cache is all there was: a note is
left there by us.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from fenlei.errors import first_line
from fenlei.hubs.repository import DEFAULT_BRANCHES, NotThereError, Repository, offline_by

TITLE = "ModelScope"
NOTE = ".fenlei-fetched"
"""In a folder of the cache: which sets of patterns have been fetched to their end."""


def why_not(name: str) -> str | None:
    """Why neither its cache nor its hub can be asked; None where they can."""
    if "/" not in name:
        return "not asked, its ids have the form owner/name"
    if importlib.util.find_spec("modelscope_hub") is None:
        return "not asked, its client is not installed (pip install modelscope-hub)"
    return None


def fetch(repository: Repository, offline: bool) -> Path:
    """The folder of the repository's snapshot, from the cache (`offline`) or the hub; NotThereError says why there is none."""
    from modelscope_hub.compat.snapshot_download import snapshot_download
    from modelscope_hub.errors import HubError

    if not offline and (variable := offline_by()):
        raise NotThereError(f"not asked, {variable} is set")
    try:
        folder = Path(
            snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=None if repository.revision in DEFAULT_BRANCHES else repository.revision,
                cache_dir=None if repository.cache_dir is None else str(repository.cache_dir),
                local_files_only=offline,
                allow_patterns=list(repository.wanted),
                ignore_patterns=list(repository.unwanted),
            )
        )
    except (OSError, ValueError, RuntimeError, HubError) as error:
        raise NotThereError("not there" if offline else _reason(error, repository)) from error
    if not offline:
        _note(folder, repository)
    return folder


def is_complete(folder: Path, repository: Repository) -> bool:
    """Whether all that is wanted was fetched to its end: the client gives any folder that holds something."""
    try:
        return _digest(repository) in (folder / NOTE).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def _note(folder: Path, repository: Repository) -> None:
    if not is_complete(folder, repository):
        try:
            with (folder / NOTE).open("a", encoding="ascii") as file:
                file.write(_digest(repository) + "\n")
        except OSError:
            return  # a cache that cannot be written to is asked for again next time


def _digest(repository: Repository) -> str:
    return hashlib.sha256(repr((repository.wanted, repository.unwanted)).encode()).hexdigest()


def _reason(error: Exception, repository: Repository) -> str:
    from modelscope_hub import errors
    from modelscope_hub.config import get_default_config

    told = error.__cause__ if isinstance(error.__cause__, errors.HubError) else error  # it wraps some in an HTTPError of requests
    config = get_default_config()
    token = "the token that was given has no access" if config.token else "no token was given (MODELSCOPE_API_TOKEN, or `ms login`)"
    if isinstance(error, errors.FileDownloadError):
        path, failure = next(iter(error.failed_files.items()))
        if isinstance(failure, errors.FileIntegrityError):
            return f"{path} arrived damaged, again and again ({first_line(failure)}); try again later, or another mirror"
        return f"{path} could not be fetched ({first_line(failure)}); what has come is kept, try again"
    if isinstance(told, (errors.AuthenticationError, errors.PermissionDeniedError)):
        return f"it is private, and {token}"
    if isinstance(told, errors.NotExistError):
        at = f", or it has no revision {repository.revision!r}" if repository.revision else ""
        return f"no such {'model' if repository.kind == 'model' else 'data set'} on {config.endpoint}{at}, or a private one: {token}"
    if isinstance(told, errors.NetworkError):
        return f"{config.endpoint} cannot be reached; another address goes into MODELSCOPE_ENDPOINT"
    return first_line(told)
