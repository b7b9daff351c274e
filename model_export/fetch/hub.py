"""Downloads one commit of a hub repository with huggingface_hub: the recipe's, or main's.

That library keeps the cache (HF_HOME), resumes broken downloads and honours HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE; here its failures become sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_export.fetch.checkpoint import SAFETENSORS
from model_export.fetch.pickled_weights import PICKLED
from model_export.reporting import ExportError, Report

TOKENIZER_FILES = (
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
)
"""Files of which transformers makes a tokenizer.json, beside files of JSON."""

# What an export reads, where a repository has safetensors.
WANTED = [
    SAFETENSORS,
    "*.json",
    "*.jinja",
    *TOKENIZER_FILES,
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
]
# Other copies of the same weights: in folders of other formats, and Mistral's own at the top. The
# folders that begin with a digit are sentence-transformers' modules: 1_Pooling, 2_Dense. Of others
# only the templates in additional_chat_templates are left.
UNWANTED = ["[!0-9]*/*.safetensors", "[!0-9]*/*.json", "consolidated*.safetensors"]


MAIN = "main"
"""The branch whose commit is taken where a recipe pins none."""


def download_weights(repository: str, revision: str) -> Path:
    """Downloads what an export reads, pickled weights only where there are no others."""
    directory = download(repository, revision)
    if any(directory.glob(SAFETENSORS)):
        return directory
    return download(repository, revision, wanted=[*WANTED, PICKLED])


def download(
    repository: str,
    revision: str | None,
    report: Report | None = None,
    wanted: Sequence[str] = WANTED,
) -> Path:
    """Downloads the files `wanted` to the hub's cache and returns their directory.

    Without a revision the commit is main's, which a line tells. The directory is named after it.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub_errors

    if report is not None:
        report(f"download {repository}@{(revision or MAIN)[:12]} from {constants.ENDPOINT}")
    try:
        directory = snapshot_download(
            repository,
            revision=revision or MAIN,
            allow_patterns=list(wanted),
            ignore_patterns=UNWANTED,
        )
    except hub_errors.GatedRepoError:
        problem = (
            f"is gated: accept its terms at {constants.ENDPOINT}/{repository}, make a token that "
            f"may read it at {constants.ENDPOINT}/settings/tokens, and set HF_TOKEN to it"
        )
    except hub_errors.RevisionNotFoundError:
        problem = f"has no commit {revision}" if revision else f"has no branch {MAIN}"
    except hub_errors.RepositoryNotFoundError:
        problem = "does not exist there, or is private: check the name, or set HF_TOKEN"
    except hub_errors.LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        problem = f"is not in the cache, and the hub cannot be reached ({type(cause).__name__})"
    except (OSError, hub_errors.HFValidationError) as error:
        # OSError: requests' exceptions and the hub's other HTTP errors derive from it.
        problem = f"cannot be downloaded: {str(error).splitlines()[0]}"
    else:
        if revision is None and report is not None:
            report(_not_pinned(repository, Path(directory).name))
        return Path(directory)
    raise ExportError(f"{repository} ({constants.ENDPOINT}) {problem}.")


def _not_pinned(repository: str, commit: str) -> str:
    return (
        f"not pinned: the recipe names no revision of {repository}, so this is {MAIN}, which "
        f'moves: commit {commit} now. To pin it: revision = "{commit}" in the recipe\'s [source]'
    )
