"""`python -m eval.web_pictures`: put pictures and their features beside the page of an export's part `web`."""

import json
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from PIL import Image
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import atomic_folder, write_text
from eval.pictures import folder_features, picture_paths
from eval.retrieval.images import decode_image, load_image_tower
from eval.retrieval.options import resolve_device

SHOWN_SIZE = 512
"""Pixels of the longer side of a picture on the page."""


def main(arguments: list[str] | None = None) -> None:
    """Compute the features, then write the folder `pictures/` of the page anew."""
    parser = ArgumentParser(prog="python -m eval.web_pictures", description=__doc__, exit_on_error=False)
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
    skipped = f"; {len(found.skipped)} could not be read, the first: {found.skipped[0]}" if found.skipped else ""
    print(f"{args.web}: {len(found.paths)} pictures{skipped}")
    print(f"next: python -m http.server --bind 127.0.0.1 --directory {args.web}")


if __name__ == "__main__":
    run_cli(main)
