"""Models from the Hugging Face Hub, as folders on this machine."""

import re
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import ModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(model: str) -> bool:
    """Whether it has the hub's form owner/name."""
    return _ID.fullmatch(model) is not None and ".." not in model


def is_fetched(model: str) -> bool:
    """Whether it is the hub's: a folder of that name wins."""
    return is_hub_id(model) and not Path(model).exists()


def kept(model: str, revision: str | None) -> Path | None:
    """The folder of a repository as it was fetched before, perhaps in part; None when it never was."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # Newer clients know what a whole repository has. None here ever is: nobody wants its pickles.
        partial = getattr(error, "snapshot_path", None)
        return None if partial is None else Path(partial)
    except ValueError:
        return None  # what is no id for the hub is told by `fetch`


def snapshot(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder with all of a repository's files of these patterns, as `fetch` gives it.

    At the commit that was fetched before, if one was, even if the branch has moved on since. What an
    interrupted download left out comes now; the client does not ask the network where nothing is missing.
    """
    before = kept(model, revision)
    return fetch(model, revision if before is None else before.name, patterns)


def fetch(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder with a repository's files of these patterns; its name is the commit. Raises ModelError."""
    from huggingface_hub import snapshot_download

    whole = _whole(model, revision, patterns) if revision and _COMMIT.fullmatch(revision) else None
    if whole is not None:
        return whole  # without the bar of a download
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:
        # The hub's client raises errors of its own, of its HTTP library and of the operating system.
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{model}: is no folder here, and the Hugging Face Hub does not give it: {said}"
        ) from error


def _whole(model: str, commit: str, patterns: Sequence[str]) -> Path | None:
    """The folder as it was fetched before, if the list of the commit's files says that nothing is missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return None  # an older client, which keeps no list
    try:
        get_cached_repo_tree(model, revision=commit)
        return Path(
            snapshot_download(model, revision=commit, allow_patterns=list(patterns), local_files_only=True)
        )
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError, ValueError):
        return None
