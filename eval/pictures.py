"""Features of the pictures of a folder, for search; they are kept, so that a picture is read once.

`python -m eval.pictures` puts pictures and their features beside the page of an export's part `web`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import atomic_file, atomic_folder, write_text
from distill.loading import resolve_device
from eval.datasets.benchmark import IMAGE_SUFFIXES
from eval.datasets.decoding import decode_image
from eval.retrieval.images import ImageTower, image_features, load_image_tower

BATCH = 32
"""Pictures of a forward pass; each is kept as soon as it is computed."""
SHOWN_SIZE = 512
"""Pixels of the longer side of a picture on the page."""
Tick = Callable[[int, int], object]
"""Takes how many of how many pictures are computed."""


def ignore(done: int, total: int) -> None:
    """The `Tick` of a caller that shows no progress of its own."""


@dataclass(frozen=True)
class PictureFeatures:
    """Pictures with their features [pictures, dim], L2-normalised; `skipped` are the reasons of those not readable."""

    paths: tuple[Path, ...]
    features: NDArray[np.float32]
    skipped: tuple[str, ...]

    @property
    def summary(self) -> str:
        """How many there are, and how many could not be read."""
        unread = f"; {len(self.skipped)} could not be read, the first: {self.skipped[0]}" if self.skipped else ""
        return f"{len(self.paths)} pictures{unread}"


def picture_paths(folder: Path, option: str) -> list[Path]:
    """All pictures below `folder`, by name; UserError where there are none, with `option` in it."""
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: no such folder; give one of pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"{option} {folder}: no pictures in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def folder_features(tower: ImageTower, paths: Sequence[Path], option: str, tick: Tick = ignore) -> PictureFeatures:
    """Features of `paths`; those that the cache has of the same file (path, size and time) are not computed again.

    A picture that cannot be read is skipped; UserError where none can. The cache is a folder of
    `$XDG_CACHE_HOME/yuqiao` (`~/.cache/yuqiao`) for each image tower, a file for each picture.
    """
    cache = _cache_folder(tower)
    cache.mkdir(parents=True, exist_ok=True)
    files = {path: cache / f"{_file_key(path)}.npy" for path in paths}
    missing = [path for path in paths if not files[path].is_file()]
    skipped = []
    with tqdm(total=len(missing), desc="pictures", unit="picture", leave=False, disable=None) as bar:
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            for path, result in _batch_features(tower, batch):
                if isinstance(result, str):
                    skipped.append(result)
                    continue
                with atomic_file(files[path]) as partial, partial.open("wb") as file:
                    np.save(file, result, allow_pickle=False)
            bar.update(len(batch))
            tick(start + len(batch), len(missing))
    found = [path for path in paths if files[path].is_file()]
    if not found:
        raise UserError(f"{option}: none of {len(paths)} pictures can be read; the first: {skipped[0]}")
    return PictureFeatures(tuple(found), np.stack([np.load(files[path]) for path in found]), tuple(skipped))


def _batch_features(tower: ImageTower, paths: Sequence[Path]) -> Iterator[tuple[Path, NDArray[np.float32] | str]]:
    """Each picture with its features [dim], or with why it cannot be read."""
    names = [str(path) for path in paths]
    try:
        yield from zip(paths, image_features(tower, names, _read, "crop"), strict=True)
    except (UserError, OSError) as error:
        if len(paths) == 1:
            yield paths[0], str(error)
        else:
            for path in paths:
                yield from _batch_features(tower, [path])


def _read(name: str) -> bytes:
    return Path(name).read_bytes()


def _file_key(path: Path) -> str:
    stat = path.stat()
    return hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()[:32]


def _cache_folder(tower: ImageTower) -> Path:
    """Of this tower: by its config, its preprocessing and its projection, which every training changes."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    projection: NDArray[np.float32] = tower.model.visual_projection.weight.detach().float().cpu().numpy()
    key = hashlib.sha256(projection.tobytes() + f"{tower.model.config.to_json_string()}{tower.preprocessing}".encode())
    return root / "yuqiao" / "pictures" / key.hexdigest()[:16]


def main(arguments: list[str] | None = None) -> None:
    """Compute the features of a folder, then write the folder `pictures/` of the page anew."""
    parser = ArgumentParser(prog="python -m eval.pictures", description=__doc__, exit_on_error=False)
    parser.add_argument("--web", type=Path, required=True, help="STUDENT/web, as --parts web of the export wrote it")
    parser.add_argument("--clip", type=str, required=True, help="the teacher's whole CLIP, folder or Hub id")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--device", type=str | None, help="cpu, cuda ...; by default the accelerator if there is one")
    args = parser.parse_args(arguments)
    if not (args.web / "index.html").is_file():
        raise UserError(f"--web {args.web}: no index.html; export with --parts web, and name its folder web")
    paths = picture_paths(args.pictures, "--pictures")
    tower = load_image_tower(args.clip, "--clip", torch.float32, resolve_device(args.device))
    found = folder_features(tower, paths, f"--pictures {args.pictures}")
    with atomic_folder(args.web / "pictures") as folder:
        folder.mkdir()
        names = [f"{row}.jpg" for row in range(len(found.paths))]
        for name, path in zip(names, tqdm(found.paths, desc="copies", leave=False, disable=None), strict=True):
            image = decode_image(path.read_bytes(), str(path))
            image.thumbnail((SHOWN_SIZE, SHOWN_SIZE), Image.Resampling.LANCZOS)
            image.save(folder / name, quality=85)
        titles = [path.relative_to(args.pictures).as_posix() for path in found.paths]
        write_text(json.dumps(titles, ensure_ascii=False), folder / "titles.json")
        found.features.astype("<f4").tofile(folder / "features.f32")
    print(f"{args.web}: {found.summary}")
    print(f"next: python -m http.server --bind 127.0.0.1 --directory {args.web}")


if __name__ == "__main__":
    run_cli(main)
