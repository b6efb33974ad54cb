"""Makes the miniature's models and their card from its pictures and English captions, stage by stage, resumable."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer, PreTrainedModel

from data.cli import commit
from data.files import write_json, write_text
from data.miniature.corpus import REGISTERS, TRAIN_SEED, caption_pair, sample_test_scenes
from data.miniature.scene import sample_scenes
from data.miniature.words import Wording
from eval.generation.recogniser import Recogniser, load_recogniser
from eval.miniature.dataset import MAX_LENGTH, SceneSet, english_captions, learn_tokenizer, rendered_images
from eval.miniature.train_clip import WIDTH, clip_image_features, clip_text_features, recall_at_1, train_clip
from eval.miniature.train_images import (
    Autoencoder,
    encode_images,
    latents_to_images,
    recogniser_scores,
    train_autoencoder,
    train_recogniser,
)
from eval.miniature.train_unet import UnetPrompts, cached_states, generation_scores, new_scheduler, new_unet, train_unet
from eval.miniature.training_loop import TrainingConfig, cpu_precision, save_tensors

CARD_TEMPLATE = """# The miniature's models

Made from nothing but drawn scenes and their English captions (`data/miniature`); no text or picture of anyone else's.
Licence: that of this repository.

{parts}

Command: `{command}`
Seed: {seed}. Code: {commit}. torch {torch}, diffusers {diffusers}, transformers {transformers}.
Trained on the CPU in {precision}.
Scores are on unseen scenes: each holds a kind in a colour on a background that training never shows.

{tables}"""


MODEL_DESCRIPTIONS = {
    "recogniser": "finds kinds, colours, sizes, counts, relations and background in 64x64 pictures",
    "clip": "CLIPModel + CLIPTokenizer: 77 slots, 4 layers, width 256; pictures of 64x64 in 8x8 patches",
    "pipeline": "StableDiffusionPipeline: AutoencoderTiny 8x down to 16 channels, UNet2DConditionModel, v-prediction",
    "text_encoder_2": "of pipeline-xl/: CLIPTextModelWithProjection, width 320, taught by the image tower of clip/",
    "pipeline-xl": "StableDiffusionXLPipeline: both text encoders; its denoiser goes on from that of pipeline/",
}
MIN_SCORES = {
    "recogniser": {"all_but_size": 0.98},
    "clip": {"t2i_r1.train": 0.85},
    "autoencoder": {"exact": 0.98},
    "pipeline": {"things": 0.85},
    "text_encoder_2": {"t2i_r1.caption": 0.7},
    "pipeline-xl": {"things": 0.85},
}  # a model below them is not shipped


def write_card(path: Path, scores: Mapping[str, Mapping[str, float]], command: str, seed: int) -> None:
    """Write the card at `path`: what the models are, how they were made, and their scores."""
    tables = []
    for name, model_scores in scores.items():
        bars = MIN_SCORES[name]
        rows = [f"| {key} | {value:.4g} | {bars.get(key, '')} |" for key, value in model_scores.items()]
        tables.append("\n".join([f"## {name}", "", "| measure | value | at least |", "|---|---|---|", *rows]))
    parts = "\n".join(f"- `{name}/`: {what}" for name, what in MODEL_DESCRIPTIONS.items() if name in scores)
    names = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    text = CARD_TEMPLATE.format(
        command=command,
        seed=seed,
        commit=commit(),
        precision=cpu_precision(),
        parts=parts,
        tables="\n\n".join(tables),
        **names,
    )
    write_text(text + "\n", path)


Scores = dict[str, float]
BuildStage = Literal["recogniser", "clip", "autoencoder", "pipeline"]
STAGES: tuple[BuildStage, ...] = get_args(BuildStage)


@dataclass(frozen=True)
class BuildConfig:
    """Stages, sizes and lengths; --xl in front of all makes the miniature SDXL, --tuned a fine-tuned checkpoint."""

    work: Path  # checkpoints, pictures and logs; the same command resumes from here
    out: Path  # the finished models
    seed: int = 0
    scenes: int = 60_000
    vocabulary: int = 1280
    threads: int = 2
    until: BuildStage = "pipeline"
    tested: int = 1000  # unseen scenes for recogniser and retrieval
    drawn: int = 500  # of these, how many the pipeline draws
    pictures: int = 4  # of each, from different noise
    recogniser: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1400, rate=2e-3))
    autoencoder: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=4500, rate=1.5e-3, ema=0.997))
    clip: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=500, rate=1e-3, warmup=150, decay=0.05))
    unet: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=3300, rate=1e-3, warmup=200, ema=0.998))


def build_models(config: BuildConfig) -> dict[str, Scores]:
    """Run the stages up to `config.until`, write models, scores and card, and return the scores."""
    torch.set_num_threads(config.threads)
    scenes, test_scenes = sample_scenes(config.scenes, TRAIN_SEED, "train"), sample_test_scenes(config.tested)
    train = SceneSet(scenes, rendered_images(scenes, 10**6, config.work / "train.npy"))
    test = SceneSet(test_scenes, rendered_images(test_scenes, 0, config.work / "test.npy"))
    stages = STAGES[: STAGES.index(config.until) + 1]
    scores: dict[str, Scores] = {}
    recogniser, scores["recogniser"] = make_recogniser(config, train, test)
    if "clip" in stages:
        towers, scores["clip"] = make_clip(config, train, test)
    if "autoencoder" in stages:
        autoencoder, scores["autoencoder"] = make_autoencoder(config, train, test, recogniser)
    if "pipeline" in stages:
        scores["pipeline"] = make_pipeline(config, train, test, recogniser, autoencoder, towers)
    write_json(scores, config.out / "scores.json")
    write_card(config.out / "CARD.md", scores, " ".join(["python", *sys.argv]), config.seed)
    print(json.dumps(scores, indent=1))
    return scores


def make_recogniser(config: BuildConfig, train: SceneSet, test: SceneSet) -> tuple[Recogniser, Scores]:
    """Train, write, and score the recogniser on unseen scenes."""
    trained, seconds = train_recogniser(train, config.recogniser, config.seed, config.work / "recogniser")
    half = {key: value.half() if value.is_floating_point() else value for key, value in trained.state_dict().items()}
    save_tensors(half, config.out / "recogniser" / "model.safetensors", {"format": "pt"})
    network = load_recogniser(config.out / "recogniser")  # the shipped weights are scored and used
    return network, {"seconds": seconds, **recogniser_scores(network, test.scenes, test.images)}


def make_autoencoder(
    config: BuildConfig, train: SceneSet, test: SceneSet, recogniser: Recogniser
) -> tuple[Autoencoder, Scores]:  # fmt: skip
    """Train the autoencoder, and score its reconstructions by PSNR and by the recogniser."""
    folder = config.work / "autoencoder"
    model, seconds = train_autoencoder(recogniser, train, config.autoencoder, config.seed, folder)
    reconstructed = latents_to_images(model, encode_images(model, test.images))
    error = np.square(reconstructed.astype(np.float64) - test.images).mean()
    shares = recogniser_scores(recogniser, test.scenes, reconstructed)
    return model, {"seconds": seconds, "psnr": float(10 * np.log10(255**2 / error)), **shares}


@dataclass(frozen=True)
class TrainedClip:
    """The trained CLIP and its tokenizer."""

    clip: CLIPModel
    tokenizer: CLIPTokenizer


def make_clip(config: BuildConfig, train: SceneSet, test: SceneSet) -> tuple[TrainedClip, Scores]:
    """Train and write the CLIP, and score text to image on unseen scenes in every register."""
    texts = english_captions(train.scenes, config.seed)
    tokenizer = learn_tokenizer(texts, config.vocabulary, config.out / "clip")
    trained, seconds = train_clip(train, tokenizer, config.clip, config.seed, config.work / "clip")
    half = {key: value.half() for key, value in trained.state_dict().items()}
    trained.save_pretrained(config.out / "clip", state_dict=half)
    clip = CLIPModel.from_pretrained(config.out / "clip", dtype=torch.float32)
    clip.train(False)
    gallery, owner = clip_image_features(clip, test.images), torch.arange(len(test.scenes))
    scores: Scores = {"seconds": seconds}
    wordings: tuple[Wording, ...] = ("train", "fresh")
    for wording in wordings:
        for register in REGISTERS:
            pairs = [
                caption_pair(each, register, 10**9 + i, wording, mixed=False) for i, each in enumerate(test.scenes)
            ]
            queries = clip_text_features(clip, tokenizer, [pair.en for pair in pairs])
            scores[f"t2i_r1.{wording}.{register}"] = round(recall_at_1(queries, gallery, owner), 4)
        recalls = [scores[f"t2i_r1.{wording}.{register}"] for register in REGISTERS]
        scores[f"t2i_r1.{wording}"] = round(float(np.mean(recalls)), 4)
    CLIPImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    ).save_pretrained(config.out / "clip")  # fmt: skip
    return TrainedClip(clip, tokenizer), scores


def make_pipeline(
    config: BuildConfig,
    train: SceneSet,
    test: SceneSet,
    recogniser: Recogniser,
    autoencoder: Autoencoder,
    towers: TrainedClip,
) -> Scores:
    """Train the denoiser, write the pipeline, and score the pictures that it draws of unseen scenes."""
    texts = english_captions(train.scenes, config.seed + 10**9)

    def encode(batch: list[str]) -> Tensor:
        ids = towers.tokenizer(batch, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states: Tensor = towers.clip.text_model(ids).last_hidden_state
        return states

    states = cached_states(encode, ["", *texts], (MAX_LENGTH, WIDTH), config.work / "states.npy")
    latents = encode_images(autoencoder, train.images)
    torch.manual_seed(config.seed)
    unet = new_unet()
    prompts = UnetPrompts((states,))
    seconds = train_unet(unet, latents, prompts, train, config.unet, config.seed, config.work / "unet")
    encoder = CLIPTextModel.from_pretrained(config.out / "clip", dtype=torch.float32)
    pipeline_class: Any = StableDiffusionPipeline
    pipeline = pipeline_class(
        vae=autoencoder, text_encoder=encoder, tokenizer=towers.tokenizer, unet=unet,
        scheduler=new_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    shares = generation_scores(pipeline, recogniser, test.scenes[: config.drawn], config.pictures)
    folder = config.out / "pipeline"
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    save_half(encoder, folder / "text_encoder")
    for name in ("vocab.json", "merges.txt"):  # for loaders other than transformers 5
        shutil.copyfile(config.out / "clip" / name, folder / "tokenizer" / name)
    weights = folder / "text_encoder" / "model.safetensors"
    weights.unlink()  # they are in the whole CLIP
    weights.symlink_to("../../clip/model.safetensors")
    return {"seconds": seconds, **shares}


def save_half(encoder: PreTrainedModel, folder: Path) -> None:
    """Write the half-precision weights of `encoder` in a config that says fp32.

    transformers then loads them as fp32, as diffusers does with its own parts.
    """
    half = encoder.state_dict()
    torch.nn.Module.to(encoder, dtype=torch.float32)
    encoder.save_pretrained(folder, state_dict=half)
