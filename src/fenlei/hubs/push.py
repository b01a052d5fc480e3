"""A local folder to a model repository on Hugging Face."""

from __future__ import annotations

from pathlib import Path

from fenlei.errors import ConfigError, ModelError, first_line
from fenlei.hubs.huggingface import errors_of
from fenlei.hubs.repository import is_id, split_prefix


def check_push(name: str) -> str:
    """The id to push to; ConfigError where it is none that can be pushed to, before anything is computed."""
    source, bare = split_prefix(name)
    if source == "modelscope":
        raise ConfigError(f"{name}: pushed is to Hugging Face alone; to ModelScope, upload the folder: ms upload {bare} FOLDER")
    if not is_id(bare) or "/" not in bare:
        raise ConfigError(f"{name}: expected the id of a repository of yours, OWNER/NAME")
    return bare


def push(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Makes the repository where there is none, adds every file of `folder` in one commit and returns its address.

    ModelError where the hub does not take it, with the reason. The folder stays as it is.
    """
    import huggingface_hub
    from huggingface_hub import errors

    bare = check_push(name)
    api = huggingface_hub.HfApi()
    if huggingface_hub.get_token() is None:
        raise ModelError(f"{name}: nothing was pushed, no token was given (HF_TOKEN with the right to write, or `hf auth login`)")
    try:
        address = str(api.create_repo(bare, private=private, exist_ok=True))
        api.upload_folder(repo_id=bare, folder_path=folder, commit_message=message)
    except errors_of(errors) as error:
        raise ModelError(f"{name}: could not be pushed ({first_line(error)}); {folder} is whole, push it again") from error
    return address
