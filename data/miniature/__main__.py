"""`python -m data.miniature --out DIR`: training pairs by register, test captions, prompts, and test pictures."""

from pathlib import Path

from jsonargparse import ArgumentParser
from PIL import Image

from data.cli import UserError, command
from data.miniature.corpus import unseen_scenes, write_pairs, write_test
from data.miniature.render import render_batch


def run(arguments: list[str] | None = None) -> None:
    """Write `pairs/REGISTER.jsonl` and `test/`; with --pictures also `test/images/NNNN.png`."""
    parser = ArgumentParser(prog="python -m data.miniature", description=__doc__, exit_on_error=False)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--pairs", type=int, default=100_000, help="training pairs in all five registers")
    parser.add_argument("--seed", type=int, default=0, help="of the wording of the training pairs")
    parser.add_argument("--scenes", type=int, default=1000, help="test scenes")
    parser.add_argument("--pictures", type=bool, default=False, help="also draw the test scenes")
    parser.add_argument("--width", type=int, default=64, help="of the pictures, in pixels")
    given = parser.parse_args(arguments)
    if given.pairs < 5 or given.scenes < 1:
        raise UserError(f"--pairs {given.pairs} --scenes {given.scenes}: at least 5 pairs and 1 scene")
    if given.width < 16:
        raise UserError(f"--width {given.width}: at least 16 pixels")
    write_pairs(given.out / "pairs", given.pairs, given.seed)
    write_test(given.out / "test", given.scenes)
    if given.pictures:
        folder = given.out / "test" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        scenes = unseen_scenes(given.scenes)
        for start in range(0, len(scenes), 256):
            some = scenes[start : start + 256]
            for index, picture in enumerate(render_batch(some, range(start, start + len(some)), given.width), start):
                Image.fromarray(picture).save(folder / f"{index:04d}.png")
    print(f"{given.out}: {given.pairs} pairs in five registers, {given.scenes} test scenes")


def main() -> None:
    """Write the miniature's corpus."""
    run()


if __name__ == "__main__":
    command(main)
