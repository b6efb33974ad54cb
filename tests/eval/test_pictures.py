"""Pictures of a folder: kept features, files that cannot be read, and the folder of the web page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cli import UserError
from eval import pictures
from eval.pictures import folder_features, picture_paths
from eval.retrieval.images import ImageTower, image_features, load_image_tower
from tests.eval.files import picture
from tests.eval.tiny import save_clip


@pytest.fixture
def tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageTower:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_clip(tmp_path / "clip")
    return load_image_tower(str(tmp_path / "clip"), "--clip", torch.float32, torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "夏").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "mine" / "夏" / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "mine" / "cut.JPG").write_bytes(b"no picture")
    return tmp_path / "mine"


def test_each_picture_is_computed_once(tower: ImageTower, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = picture_paths(folder, "--pictures")
    ticks: list[tuple[int, int]] = []
    found = folder_features(tower, paths, "--pictures", lambda done, total: ticks.append((done, total)))
    assert [path.name for path in found.paths] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(found.skipped) == 1
    assert "cut.JPG" in found.skipped[0]
    assert ticks == [(5, 5)]
    wanted = image_features(tower, [str(path) for path in found.paths], lambda name: Path(name).read_bytes(), "crop")
    assert np.allclose(found.features, wanted, atol=1e-5)
    computed: list[str] = []

    def counted(tower: ImageTower, names: list[str], *rest: object) -> object:
        computed.extend(Path(name).name for name in names)
        return image_features(tower, names, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures, "image_features", counted)
    (folder / "cut.JPG").unlink()
    (folder / "夏" / "2.png").write_bytes(picture(9))
    again = folder_features(tower, picture_paths(folder, "--pictures"), "--pictures")
    assert computed == ["2.png"]
    assert np.array_equal(again.features[[0, 1, 3]], found.features[[0, 1, 3]])
    assert not np.allclose(again.features[2], found.features[2], atol=1e-3)


def test_a_folder_without_pictures_is_one_line(tower: ImageTower, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--pictures .*absent: no such folder; give one of pictures"):
        picture_paths(tmp_path / "absent", "--pictures")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"--pictures X: none of 1 pictures can be read; the first: image .*bad.png"):
        folder_features(tower, [tmp_path / "bad.png"], "--pictures X")


def test_pictures_beside_the_web_page(
    tower: ImageTower, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = tmp_path / "web"
    command = ["--web", str(web), "--clip", str(tmp_path / "clip"), "--pictures", str(folder), "--device", "cpu"]
    with pytest.raises(UserError, match=r"no index\.html; export with --parts web"):
        pictures.main(command)
    web.mkdir()
    (web / "index.html").touch()
    pictures.main(command)
    pictures.main(command)  # replaces what is there
    assert "4 pictures; 1 could not be read, the first: image " in capsys.readouterr().out
    files = {path.name for path in (web / "pictures").iterdir()}
    assert files == {"titles.json", "features.f32", "0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    titles = json.loads((web / "pictures" / "titles.json").read_text(encoding="utf-8"))
    assert titles == [f"夏/{number}.png" for number in range(4)]
    features = np.fromfile(web / "pictures" / "features.f32", "<f4").reshape(4, -1)
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
