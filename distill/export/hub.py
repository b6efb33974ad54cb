"""Upload an exported student to the Hub: one commit, so that a reader sees all of it or nothing."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data.cli import UserError, one_line

REPOSITORY_FILES = {".gitattributes"}
"""Of the repository itself, not of an export."""


@dataclass(frozen=True)
class UploadTarget:
    """Where an upload goes: a model repository `user/name`, its branch (None: main), and the commit's message."""

    repo: str
    public: bool
    revision: str | None
    message: str
    endpoint: str | None = None
    """Of another Hub than the one that HF_ENDPOINT or the default names."""


def upload(folder: Path, target: UploadTarget) -> str:
    """Upload `folder` to `target` and return the address of the commit.

    The repository is made if it is not there, private unless it is to be public. Large files are sent first, each known
    by its hash, so a repeated call sends only what is missing; then one commit puts all of them in place and removes
    files of a former export. (`HfApi.upload_folder` would make several commits of it.) Whatever goes wrong raises
    UserError with the fix, never with the token.
    """
    repo, revision, token = target.repo, target.revision, hub_token(target.repo)
    api = HfApi(endpoint=target.endpoint, token=token)
    try:
        api.create_repo(repo, private=not target.public, exist_ok=True)
        if not target.public and not api.model_info(repo).private:
            raise UserError(f"--push-to-hub {repo}: that repository is public; say --public if you mean it")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repo,
            operations=_commit_operations(api, folder, repo, revision),
            commit_message=target.message,
            revision=revision,
        )
    except Exception as error:
        if not (_is_network_error(error) or isinstance(error, HfHubHTTPError | ValueError | RuntimeError | OSError)):
            raise
        raise UserError(f"--push-to-hub {repo}: {_failure_reason(error, token)}") from error
    return str(commit.commit_url)


def hub_token(repo: str) -> str:
    """The token to upload to `repo` with; a name that is no repository id, or no token, raises UserError."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub {repo}: not a repository id; write user/name") from error
    token = get_token()
    if token is None:
        raise UserError("--push-to-hub: no token; run `hf auth login` or set HF_TOKEN to one that may write")
    return token


def _commit_operations(
    api: HfApi, folder: Path, repo: str, revision: str | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    stale = set(api.list_repo_files(repo, revision=revision)) - set(names) - REPOSITORY_FILES
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in names.items()]
    return [*added, *(CommitOperationDelete(path_in_repo=name) for name in sorted(stale))]


def _failure_reason(error: Exception, token: str) -> str:
    """One sentence for the user: what the Hub said, the token masked, and what to do."""
    if str(error).startswith("Invalid metadata"):  # the client's ValueError; its cause would say less
        return f"the Hub refuses the model card, maybe its --license ({one_line(_masked(error, token))})"
    while not (isinstance(error, HfHubHTTPError) or _is_network_error(error)) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__  # the client wraps what went wrong with one file
    code = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    message = one_line(_masked(error, token))
    full_message = str(error).lower()  # the Hub's own words come after a long address and an id
    if code == 401 or (code == 403 and "storage" not in full_message and "quota" not in full_message):
        return f"the token was refused ({code}); log in with one that may write there: hf auth login"
    if code in (402, 403, 413, 507):
        return f"the account's storage is full ({code}); nothing was published; free some space and repeat"
    if code is not None:
        return f"the Hub answered {code}; nothing was published; repeat the command later ({message})"
    if _is_network_error(error) or isinstance(error, ConnectionError):
        return f"the connection was cut ({type(error).__name__}); repeat the command, what arrived is not sent again"
    return f"{message}; nothing was published; repeat the command"


def _masked(error: Exception, token: str) -> Exception:
    """`error` without the token, before anything cuts it in two."""
    return Exception(str(error).replace(token, "***"))


def _is_network_error(error: Exception) -> bool:
    """Whether the HTTP library raised it; huggingface_hub has changed it twice, and their errors share no class."""
    return type(error).__module__.partition(".")[0] in {"httpx", "httpx2", "requests", "urllib3"}
