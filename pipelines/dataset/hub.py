"""Sending a folder to the Hugging Face Hub. The token comes from `HF_TOKEN` or `hf auth login`."""

from __future__ import annotations

import re
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from .errors import ExportError

ATTEMPTS = 5
FIRST_WAIT_S = 1.0


def repository(to: str) -> str | None:
    """The `owner/name` of an `hf://` address; None = it is a folder.

    Raises:
        ExportError: the address names no repository.
    """
    if not to.startswith("hf://"):
        return None
    name = to.removeprefix("hf://").removeprefix("datasets/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ExportError(f"expected hf://owner/name, got {to!r}")
    return name


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder as one commit of a dataset repository; returns its address.

    Raises:
        ExportError: no token, no network, or the Hub refuses.
    """
    token = get_token()
    if token is None:
        raise ExportError(
            f"pushing to hf://{name} needs a token; set HF_TOKEN or run `hf auth login`"
        )
    api = HfApi(token=token)
    patiently = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(FIRST_WAIT_S, max=30.0),
        reraise=True,
    )
    try:
        patiently(api.create_repo, name, repo_type="dataset", private=private, exist_ok=True)
        patiently(
            api.upload_folder,
            repo_id=name,
            folder_path=folder,
            repo_type="dataset",
            commit_message="Add agent trajectories",
            delete_patterns="data/*.parquet",
        )
    except (HTTPError, OfflineModeIsEnabled) as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{api.endpoint} did not take hf://{name} ({first}); check the network, the token "
            "and the name, or export to a folder and send that later"
        ) from error
    return f"{api.endpoint}/datasets/{name}"


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, too many requests, their fault."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, HTTPError)
