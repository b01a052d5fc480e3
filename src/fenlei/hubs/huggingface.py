"""Hugging Face, through huggingface_hub: HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are read by it.

It resumes a file that breaks off, and keeps the files of a download that ends. It compares their sizes; their content is compared here.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from fenlei.errors import first_line
from fenlei.hubs.repository import DEFAULT_BRANCHES, NotThereError, Repository, offline_by

TITLE = "Hugging Face"


def fetch(repository: Repository, offline: bool) -> Path:
    """The folder of the repository's snapshot, from the cache (`offline`) or the hub; NotThereError says why there is none."""
    import huggingface_hub
    from huggingface_hub import errors

    revision = "main" if repository.revision in DEFAULT_BRANCHES else repository.revision
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=revision,
                cache_dir=repository.cache_dir,
                local_files_only=offline,
                allow_patterns=list(repository.wanted),
                ignore_patterns=list(repository.unwanted),
            )
        )
        if not offline and folder.is_dir():  # no file matched where it is not
            _compare(repository, folder)
    except errors_of(errors) as error:
        raise NotThereError("not there" if offline else _reason(error, repository)) from error
    return folder


def is_complete(folder: Path, repository: Repository) -> bool:
    """Whether a folder of the cache has all that is wanted. With a list of the files beside it, huggingface_hub gives no other; who fetched
    them one by one left no list. What a model lacks then is found when it is opened, rows that a data set lacks would be missed by nobody.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if repository.kind == "model":
        return True
    if not hasattr(huggingface_hub, "get_cached_repo_tree"):  # an older one, which keeps no list
        return False
    try:
        huggingface_hub.get_cached_repo_tree(repository.name, repo_type="dataset", revision=folder.name, cache_dir=repository.cache_dir)
    except errors.CachedRepoTreeNotFoundError:
        return False
    return True


def _compare(repository: Repository, folder: Path) -> None:
    """NotThereError where a file is not what the hub lists: it is removed, so that the next download brings it anew."""
    import huggingface_hub

    found = huggingface_hub.HfApi().verify_repo_checksums(
        repository.name,
        repo_type=repository.kind,
        revision=folder.name,
        cache_dir=repository.cache_dir,
    )
    for mismatch in found.mismatches:
        link = folder / mismatch["path"]
        for path in (link.resolve(), link):
            path.unlink(missing_ok=True)
    if found.mismatches:
        first = found.mismatches[0]
        raise NotThereError(
            f"{first['path']} arrived damaged ({first['algorithm']} {first['actual'][:12]}..., expected {first['expected'][:12]}...) "
            "and was removed; try again, and if it stays so, another mirror"
        )


def _reason(error: Exception, repository: Repository) -> str:
    import huggingface_hub
    from huggingface_hub import constants, errors

    cause = error.__cause__
    token = "the token that was given has no access" if huggingface_hub.get_token() else "no token was given (HF_TOKEN, or `hf auth login`)"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner grants access on {constants.ENDPOINT}/{repository.name}, and {token}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such {'model' if repository.kind == 'model' else 'data set'} on {constants.ENDPOINT}, or a private one: {token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {repository.revision!r}"
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return f"not asked, {offline_by() or 'HF_HUB_OFFLINE'} is set"
    if isinstance(error, errors.LocalEntryNotFoundError) and cause is not None:
        return f"{constants.ENDPOINT} cannot be reached ({first_line(cause)}); a mirror goes into HF_ENDPOINT"
    return first_line(error)


def errors_of(module: ModuleType) -> tuple[type[Exception], ...]:
    """All that huggingface_hub raises on purpose: the classes share no root, and differ between versions."""
    own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (OSError, ValueError, RuntimeError, *own)
