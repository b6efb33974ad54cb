"""`python -m data.miniature --out DIR`: training pairs by register, test captions, prompts, and test pictures."""

from pathlib import Path

from jsonargparse import ArgumentParser
from PIL import Image

from data.cli import UserError, run_cli
from data.miniature.corpus import sample_test_scenes, write_pairs, write_test
from data.miniature.render import render_batch


def main(arguments: list[str] | None = None) -> None:
    """Write `pairs/REGISTER.jsonl` and `test/`; with --pictures also `test/images/NNNN.png`."""
    parser = ArgumentParser(prog="python -m data.miniature", description=__doc__, exit_on_error=False)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--pairs", type=int, default=100_000, help="training pairs in all five registers")
    parser.add_argument("--seed", type=int, default=0, help="of the wording of the training pairs")
    parser.add_argument("--scenes", type=int, default=1000, help="test scenes")
    parser.add_argument("--pictures", type=bool, default=False, help="also draw the test scenes")
    parser.add_argument("--width", type=int, default=64, help="of the pictures, in pixels")
    args = parser.parse_args(arguments)
    if args.pairs < 5 or args.scenes < 1:
        raise UserError(f"--pairs {args.pairs} --scenes {args.scenes}: at least 5 pairs and 1 scene")
    if args.width < 16:
        raise UserError(f"--width {args.width}: at least 16 pixels")
    write_pairs(args.out / "pairs", args.pairs, args.seed)
    write_test(args.out / "test", args.scenes)
    if args.pictures:
        folder = args.out / "test" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        scenes = sample_test_scenes(args.scenes)
        for start in range(0, len(scenes), 256):
            seeds = range(start, min(start + 256, len(scenes)))
            for seed, picture in zip(seeds, render_batch(scenes[start : start + 256], seeds, args.width), strict=True):
                Image.fromarray(picture).save(folder / f"{seed:04d}.png")
    print(f"{args.out}: {args.pairs} pairs in five registers, {args.scenes} test scenes")


if __name__ == "__main__":
    run_cli(main)
