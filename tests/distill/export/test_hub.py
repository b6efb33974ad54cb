"""Upload through huggingface_hub's own client to a hub on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTextModelWithProjection

from data.cli import UserError
from distill.export.hub import UploadTarget, hub_token, upload
from distill.export.main import parse
from tests.distill.export.hub_server import TOKEN, Hub, running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its storage is another server
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with running() as hub:
        yield hub


def sent(hub: Hub, folder: Path, **settings: Any) -> str:  # noqa: ANN401  the settings of push
    given = {"public": False, "revision": None, "message": "A student", **settings}
    return upload(folder, UploadTarget("me/student", TOKEN, endpoint=hub.address, **given))


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_whole_folder_is_one_private_commit(hub: Hub, student: Path, tmp_path: Path) -> None:
    url = sent(hub, student)
    assert url.startswith(f"{hub.address}/me/student/commit/")
    assert hub.private
    assert [commit["summary"] for commit in hub.commits] == ["A student"]
    published = {name: content for name, content in hub.branches["main"].items() if name != ".gitattributes"}
    assert published == held(student)
    from huggingface_hub import snapshot_download

    again = snapshot_download("me/student", endpoint=hub.address, local_dir=tmp_path / "again", token=TOKEN)
    assert CLIPTextModelWithProjection.from_pretrained(again).config.eos_token_id == 519


def test_a_repeat_sends_no_large_file_again_and_removes_what_is_gone(hub: Hub, student: Path) -> None:
    sent(hub, student)
    first = list(hub.uploads)
    assert len(first) == 2
    shutil.rmtree(student / "tokenizer")
    sent(hub, student, message="Smaller")
    assert hub.uploads == first
    assert not any(name.startswith("tokenizer/") for name in hub.branches["main"])
    assert ".gitattributes" in hub.branches["main"]


def test_a_revision_is_its_own_branch(hub: Hub, student: Path) -> None:
    sent(hub, student, revision="v2")
    assert set(hub.branches["main"]) == {".gitattributes"}
    assert "config.json" in hub.branches["v2"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refused", r"the token was refused \(401\); log in with one that may write"),
        (
            "card",
            r"the Hub refuses the model card, maybe its --license \(Invalid metadata .*\"license\" must be one of",
        ),
        ("full", r"the account's storage is full \(403\); nothing was published"),
        ("cut", r"the connection was cut .*; repeat the command, what arrived is not sent again"),
        ("down", r"the Hub answered 400; nothing was published; repeat the command later"),
    ],
)
def test_what_goes_wrong_publishes_nothing_and_may_be_repeated(fault: str, said: str, hub: Hub, student: Path) -> None:
    hub.fault = fault
    (student / "README.md").write_text("---\nlicense: mine\n---\n")
    with pytest.raises(UserError, match=said) as raised:
        sent(hub, student)
    assert TOKEN not in str(raised.value)
    assert hub.commits == []
    arrived = list(hub.uploads)
    hub.fault = ""
    sent(hub, student)
    assert len(hub.commits) == 1
    assert hub.uploads[: len(arrived)] == arrived
    assert len(hub.uploads) == len(set(hub.uploads)) == 2
    assert set(held(student)) <= set(hub.branches["main"])


def test_a_public_repository_is_not_used_by_mistake(hub: Hub, student: Path) -> None:
    sent(hub, student, public=True)
    assert not hub.private
    with pytest.raises(UserError, match="that repository is public; say --public"):
        sent(hub, student)
    assert len(hub.commits) == 1


def test_a_name_that_cannot_work_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    options = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--push-to-hub", "no good/name"]
    with pytest.raises(UserError, match="not a repository id"):
        parse(options)


def test_ids_and_tokens_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub_token("me/student") == TOKEN
    with pytest.raises(UserError, match="not a repository id; write user/name"):
        hub_token("no good/name")
    monkeypatch.setattr("distill.export.hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no token; run `hf auth login` or set HF_TOKEN"):
        hub_token("me/student")
