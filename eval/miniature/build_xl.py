"""What is made from the first miniature: the miniature SDXL, and a fine-tuned checkpoint.

SDXL is a second text tower, then a denoiser that reads both; the checkpoint is denoiser and text encoder trained on
pictures of another style, together.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from data.files import write_json
from data.miniature import ASSETS
from data.miniature.corpus import TRAIN_SEED, caption_pair, sample_test_scenes
from data.miniature.scene import sample_scenes
from eval.generation.pipeline import load_pipeline
from eval.generation.recogniser import load_recogniser
from eval.miniature.build import Scores, save_half, write_card
from eval.miniature.dataset import MAX_LENGTH, SceneSet, english_captions, rendered_images
from eval.miniature.train_clip import SECOND_WIDTH, WIDTH, clip_image_features, recall_at_1, train_text_tower
from eval.miniature.train_images import encode_images
from eval.miniature.train_unet import TrainedPrompts, UnetPrompts, cached_states, generation_scores, train_unet
from eval.miniature.training_loop import TrainingConfig, autocast

Unet = Any  # diffusers.UNet2DConditionModel; diffusers has no types
TIME_IDS = (64, 64, 0, 0, 64, 64)  # original size, crop, target size: the miniature knows one
TUNED_BATCH = 64
ADDED_WIDTH = 32  # of each time id
FITTED_CAPTIONS = 400  # from which the first key and value maps are fitted


@dataclass(frozen=True)
class XlBuildConfig:
    """Sizes and lengths of training."""

    work: Path  # checkpoints, pictures and logs; the same command resumes from here
    out: Path  # the finished pipeline
    models: Path = ASSETS  # the first miniature
    seed: int = 0
    scenes: int = 16_000  # of the text tower
    drawn_scenes: int = 6_000  # of these, how many the denoiser learns from
    threads: int = 2
    tested: int = 1000  # unseen scenes for retrieval
    drawn: int = 500  # of these, how many the pipeline draws
    pictures: int = 4  # of each, from different noise
    text: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=160, rate=1e-3, warmup=80, decay=0.05))
    unet: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=300, rate=5e-4, warmup=50, ema=0.99))


@dataclass(frozen=True)
class TunedConfig:
    """Sizes and length of the fine-tuning."""

    work: Path  # checkpoints, pictures and logs; the same command resumes from here
    out: Path  # the pipeline
    models: Path = ASSETS  # the first miniature
    seed: int = 0
    scenes: int = 8_000
    threads: int = 1
    drawn: int = 60  # unseen scenes, one picture each
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=300, rate=4e-4, warmup=30, ema=0.98))


@dataclass(frozen=True)
class TowerPair:
    """Both text towers with their tokenizers, which differ in their padding alone."""

    first: CLIPTextModel
    second: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer

    def first_states(self, texts: list[str]) -> Tensor:
        """[n, 77, 256] before the first tower's last layer."""
        with autocast():  # the states are stored in half precision anyway
            return penultimate(self.first(_ids(self.tokenizer, texts), output_hidden_states=True))

    def second_states(self, texts: list[str]) -> Tensor:
        """[n, 77, 320] before the second tower's last layer."""
        with autocast():  # the states are stored in half precision anyway
            return penultimate(self.second(_ids(self.tokenizer_2, texts), output_hidden_states=True))

    def pooled(self, texts: list[str]) -> Tensor:
        """[n, 320] of the second tower's projection; it does not depend on the padding."""
        pooled: Tensor = self.second(_ids(self.tokenizer_2, texts, "longest")).text_embeds
        return pooled


def penultimate(output: Any) -> Tensor:  # noqa: ANN401  # an output of transformers
    """The states before the last layer, without the final norm, as SDXL reads them."""
    states: Tensor = output.hidden_states[-2]
    return states.float()


def _ids(tokenizer: CLIPTokenizer, texts: list[str], padding: str = "max_length") -> Tensor:
    ids: Tensor = tokenizer(texts, padding=padding, truncation=True, return_tensors="pt").input_ids
    return ids


def build_xl(config: XlBuildConfig) -> dict[str, Scores]:
    """Run every stage, write the pipeline, its scores and its card, and return the scores."""
    torch.set_num_threads(config.threads)
    scenes, test_scenes = sample_scenes(config.scenes, TRAIN_SEED, "train"), sample_test_scenes(config.tested)
    train = SceneSet(scenes, rendered_images(scenes, 10**6, config.work / "train.npy"))
    test = SceneSet(test_scenes, rendered_images(test_scenes, 0, config.work / "test.npy"))
    towers, text_scores = make_second_tower(config, train, test)
    kind: Any = StableDiffusionPipeline
    first = kind.from_pretrained(config.models / "pipeline", safety_checker=None, requires_safety_checker=False)
    unet, seconds = make_unet(config, train, towers, first)
    folder = config.out / "pipeline-xl"
    save_xl_pipeline(towers, unet, first, config.models / "clip", folder)
    link_equal_files(folder, config.models / "pipeline")
    pipeline = load_pipeline(str(folder), torch.device("cpu"))  # the shipped weights are scored
    recogniser = load_recogniser(config.models / "recogniser")
    shares = generation_scores(pipeline, recogniser, test.scenes[: config.drawn], config.pictures)
    scores = {"text_encoder_2": text_scores, "pipeline-xl": {"seconds": seconds, **shares}}
    write_json(scores, config.out / "scores-xl.json")
    write_card(config.out / "CARD-XL.md", scores, " ".join(["python", *sys.argv]), config.seed)
    print(json.dumps(scores, indent=1))
    return scores


def save_xl_pipeline(towers: TowerPair, unet: Unet, first: Any, clip: Path, folder: Path) -> None:  # noqa: ANN401
    """Write the pipeline in half precision, with parts of the first miniature, whose CLIP is `clip`."""
    kind: Any = StableDiffusionXLPipeline
    pipeline = kind(
        vae=first.vae, text_encoder=towers.first, text_encoder_2=towers.second, tokenizer=towers.tokenizer,
        tokenizer_2=towers.tokenizer_2, unet=unet, scheduler=first.scheduler, add_watermarker=False,
    )  # fmt: skip
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    for name, tower in (("text_encoder", towers.first), ("text_encoder_2", towers.second)):
        save_half(tower, folder / name)
    for name, tokenizer in product(("vocab.json", "merges.txt"), ("tokenizer", "tokenizer_2")):
        shutil.copyfile(clip / name, folder / tokenizer / name)  # for loaders other than transformers 5


def link_equal_files(folder: Path, other: Path) -> None:
    """Replace each file of `folder` that lies in `other` with the same bytes by a relative link, as the Hub's cache."""
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()):
        same = other / path.relative_to(folder)
        if same.is_file() and same.read_bytes() == path.read_bytes():
            path.unlink()
            path.symlink_to(os.path.relpath(same, path.parent))


def make_second_tower(config: XlBuildConfig, train: SceneSet, test: SceneSet) -> tuple[TowerPair, Scores]:
    """Train the second tower, and score text to image on unseen scenes against the first CLIP's image tower."""
    clip: Any = CLIPModel.from_pretrained(config.models / "clip", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(config.models / "clip")
    tokenizer_2 = CLIPTokenizer.from_pretrained(config.models / "clip", pad_token="!")
    learner, seconds = train_text_tower(train, clip, tokenizer_2, config.text, config.seed, config.work / "text")
    first: Any = CLIPTextModel.from_pretrained(config.models / "pipeline" / "text_encoder", dtype=torch.float32)
    towers = TowerPair(first.eval(), learner.tower, tokenizer, tokenizer_2)
    captions = [caption_pair(each, "caption", 10**9 + i, "train").en for i, each in enumerate(test.scenes)]
    with torch.no_grad():
        queries = torch.cat([F.normalize(towers.pooled(captions[i : i + 250])) for i in range(0, len(captions), 250)])
        gallery = F.normalize(learner.image(clip_image_features(clip, test.images)))
    recall = recall_at_1(queries, gallery, torch.arange(len(captions)))
    return towers, {"seconds": seconds, "t2i_r1.caption": round(recall, 4)}


def make_unet(config: XlBuildConfig, train: SceneSet, towers: TowerPair, first: Any) -> tuple[Unet, float]:  # noqa: ANN401
    """Train a denoiser that reads both towers, from the first miniature's."""
    train = SceneSet(train.scenes[: config.drawn_scenes], train.images[: config.drawn_scenes])
    texts = ["", *english_captions(train.scenes, config.seed + 10**9)]
    states = (
        cached_states(towers.first_states, texts, (MAX_LENGTH, WIDTH), config.work / "first.npy"),
        cached_states(towers.second_states, texts, (MAX_LENGTH, SECOND_WIDTH), config.work / "second.npy"),
    )
    pooled = cached_states(towers.pooled, texts, (SECOND_WIDTH,), config.work / "pooled.npy")
    latents = encode_images(first.vae, train.images)
    torch.manual_seed(config.seed)
    unet = new_xl_unet(first.unet, fitted_maps(towers, texts[1 : 1 + FITTED_CAPTIONS]))
    prompts = UnetPrompts(states, pooled, TIME_IDS)
    return unet, train_unet(unet, latents, prompts, train, config.unet, config.seed, config.work / "unet")


@torch.no_grad()
def fitted_maps(towers: TowerPair, texts: list[str]) -> Tensor:
    """[256 + 320, 256]: half of each tower's own best linear guess at the states that the first denoiser reads.

    Least squares with a little ridge; half of each, so that neither tower's columns can be left out.
    """
    target = towers.first(_ids(towers.tokenizer, texts)).last_hidden_state.flatten(0, 1).double()
    maps = []
    for states in (towers.first_states(texts), towers.second_states(texts)):
        rows = states.flatten(0, 1).double()
        ridge = 1e-3 * rows.square().mean() * len(rows) * torch.eye(rows.shape[1], dtype=torch.double)
        maps.append(torch.linalg.solve(rows.T @ rows + ridge, rows.T @ target) / 2)
        left = (target - 2 * rows @ maps[-1]).square().sum() / (target - target.mean(0)).square().sum()
        print(f"states of width {rows.shape[1]} explain {100 * (1 - float(left)):.1f} % of the first denoiser's")
    return torch.cat(maps).float()


@torch.no_grad()
def new_xl_unet(first: Unet, maps: Tensor) -> Unet:
    """SDXL's form of the first denoiser: wider keys and values, pooled state and time ids, no attention in its middle.

    Weights that have a place are kept; a key map W becomes W maps^T; what is new adds nothing at first.
    """
    # Of a model made here, not loaded, diffusers notes which keys had defaults, and would put these in again.
    config = {key: value for key, value in first.config.items() if key != "_use_default_values"}
    unet = type(first).from_config({
        **config, "cross_attention_dim": len(maps), "mid_block_type": "UNetMidBlock2D",
        "addition_embed_type": "text_time", "addition_time_embed_dim": ADDED_WIDTH,
        "projection_class_embeddings_input_dim": SECOND_WIDTH + len(TIME_IDS) * ADDED_WIDTH,
    })  # fmt: skip
    kept = first.state_dict()
    for name, weight in unet.state_dict().items():
        if name in kept:
            weight.copy_(kept[name] if kept[name].shape == weight.shape else kept[name].float() @ maps.T)
        elif name.startswith("add_embedding.linear_2"):
            weight.zero_()
        elif not name.startswith("add_embedding"):
            raise AssertionError(f"{name} has no counterpart in the first denoiser")
    return unet


def at_dusk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [n, 64, 64, 3] in another style: flatter, darker, bluer."""
    light, shade = np.array([0.9, 0.92, 1.0]), np.array([60, 70, 120])
    drawn: NDArray[np.uint8] = (0.85 * images * light + 0.15 * shade).round().astype(np.uint8)
    return drawn


def build_tuned(config: TunedConfig) -> dict[str, float]:
    """Fine-tune the first miniature on pictures at dusk, write the pipeline, and return what it draws right."""
    torch.set_num_threads(config.threads)
    scenes = sample_scenes(config.scenes, TRAIN_SEED, "train")
    train = SceneSet(scenes, rendered_images(scenes, 10**6, config.work / "train.npy"))
    pipeline = load_pipeline(str(config.models / "pipeline"), torch.device("cpu"))
    latents, folder = encode_images(pipeline.vae, at_dusk(train.images)), config.work / "tuned"
    encoder = pipeline.text_encoder.requires_grad_(True)
    encoder.set_attn_implementation("eager")  # as for the first CLIP
    prompts = TrainedPrompts(encoder, _ids(pipeline.tokenizer, ["", *english_captions(scenes, config.seed + 10**9)]))
    train_unet(pipeline.unet, latents, prompts, train, config.training, config.seed, folder, TUNED_BATCH)
    pipeline.to(dtype=torch.float16).save_pretrained(config.out)
    save_half(encoder, config.out / "text_encoder")
    tuned = load_pipeline(str(config.out), torch.device("cpu"))  # the half-precision weights are scored
    recogniser = load_recogniser(config.models / "recogniser")
    scores = generation_scores(tuned, recogniser, sample_test_scenes(config.drawn), 1)
    print(json.dumps(scores, indent=1))
    return scores
