"""Upload an exported student to the Hub: one commit, so that a reader sees all of it or nothing."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data.cli import UserError, one_line

REPOSITORY_FILES = {".gitattributes"}
"""Files of the repository itself, not of an export."""
STORAGE_FULL = "the account's storage is full ({code}); nothing was published; free some space and repeat"
TOKEN_REFUSED = "the token was refused ({code}); log in with one that may write there: hf auth login"
STATUS_REASONS = {401: TOKEN_REFUSED, 402: STORAGE_FULL, 403: TOKEN_REFUSED, 413: STORAGE_FULL, 507: STORAGE_FULL}


@dataclass(frozen=True)
class UploadTarget:
    """Where an upload goes: a model repository `user/name`, its branch (None: main), and the commit's message."""

    repo: str
    token: str
    public: bool
    revision: str | None
    message: str
    endpoint: str | None = None
    """Address of the Hub; None: that of HF_ENDPOINT, or the default."""


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


def upload(folder: Path, target: UploadTarget) -> str:
    """Upload `folder` to `target` and return the address of the commit.

    The repository is made if it is not there, private unless it is to be public. Large files are sent first, each known
    by its hash, so a repeated call sends only what is missing; then one commit puts all of them in place and removes
    files of a former export. (`HfApi.upload_folder` would make several commits of it.) Whatever goes wrong raises
    UserError with the fix, never with the token.
    """
    api, repo = HfApi(endpoint=target.endpoint, token=target.token), target.repo
    try:
        api.create_repo(repo, private=not target.public, exist_ok=True)
        if not target.public and not api.model_info(repo).private:
            raise UserError(f"--push-to-hub {repo}: that repository is public; say --public if you mean it")
        if target.revision is not None:
            api.create_branch(repo, branch=target.revision, exist_ok=True)
        operations = _commit_operations(api, folder, target)
        commit = api.create_commit(repo, operations, commit_message=target.message, revision=target.revision)
    except Exception as error:
        if not (_is_network_error(error) or isinstance(error, HfHubHTTPError | ValueError | RuntimeError | OSError)):
            raise
        raise UserError(f"--push-to-hub {repo}: {_failure_reason(error, target.token)}") from error
    return str(commit.commit_url)


def _commit_operations(
    api: HfApi, folder: Path, target: UploadTarget
) -> list[CommitOperationAdd | CommitOperationDelete]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    stale = set(api.list_repo_files(target.repo, revision=target.revision)) - set(names) - REPOSITORY_FILES
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in names.items()]
    return [*added, *(CommitOperationDelete(path_in_repo=name) for name in sorted(stale))]


def _failure_reason(error: Exception, token: str) -> str:
    """One sentence for the user: the Hub's message, with the token masked, and the fix."""
    if str(error).startswith("Invalid metadata"):  # the client's ValueError; its cause would say less
        return f"the Hub refuses the model card, maybe its --license ({_message(error, token)})"
    while not (isinstance(error, HfHubHTTPError) or _is_network_error(error)) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__  # the client wraps what went wrong with one file
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        code, text = error.response.status_code, str(error).lower()  # the Hub's reason follows a long address
        reason = STORAGE_FULL if code == 403 and ("storage" in text or "quota" in text) else STATUS_REASONS.get(code)
        if reason is not None:
            return reason.format(code=code)
        return f"the Hub answered {code}; nothing was published; repeat the command later ({_message(error, token)})"
    if _is_network_error(error) or isinstance(error, ConnectionError):
        return f"the connection was cut ({type(error).__name__}); repeat the command, what arrived is not sent again"
    return f"{_message(error, token)}; nothing was published; repeat the command"


def _message(error: Exception, token: str) -> str:
    """The error's text on one line, masked before anything cuts the token in two."""
    return one_line(Exception(str(error).replace(token, "***")))


def _is_network_error(error: Exception) -> bool:
    """Whether the HTTP library raised it; huggingface_hub has changed it twice, and their errors share no class."""
    return type(error).__module__.partition(".")[0] in {"httpx", "httpx2", "requests", "urllib3"}
