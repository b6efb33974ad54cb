"""The miniature CLIP's features of the test pictures, for benchmarks that take features instead of pictures."""

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel

from data.miniature.corpus import unseen_scenes
from data.miniature.render import render_batch
from eval.miniature.contrast import image_features


def write_features(clip: Path, out: Path, number: int = 1000) -> None:
    """`out` (.npz): `ids` [n] as in `test/captions.jsonl`, `features` [n, 256], L2-normalised."""
    scenes = unseen_scenes(number)
    model = CLIPModel.from_pretrained(clip, dtype=torch.float32)
    model.train(False)
    found = image_features(model, render_batch(scenes, range(number))).numpy()
    partial = out.with_name(f".{out.stem}.partial.npz")
    np.savez(partial, ids=np.array([f"{index:04d}.png" for index in range(number)]), features=found)
    partial.replace(out)
