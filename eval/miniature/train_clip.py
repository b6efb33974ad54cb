"""Trains the miniature's CLIP on pictures and English captions, and measures its retrieval.

The miniature SDXL's second text tower is trained against its image tower, which stays as it is.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene
from eval.generation.recogniser import FIELDS, GRID, as_input
from eval.miniature.dataset import SceneSet, batch_rows, english_captions, tokenise_captions
from eval.miniature.train_images import cell_losses
from eval.miniature.training_loop import TrainingConfig, autocast, fit

BATCH = 256
SECOND_WIDTH = 320  # of the miniature SDXL's second tower and of its projection
SECOND_LAYERS = 3
WIDTH = 256  # of the text tower's states and of the shared space
VISION_WIDTH = 160
EDITIONS = 4  # captions of a scene
POSITION_NAMES = ("left", "right", "top", "bottom", "bearing")
NUM_FACTS = 1 + len(COLOURS) + len(SIZES) + 4 + len(POSITION_NAMES)  # bits of the code for each kind


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A stock CLIPModel: 4 layers over 77 tokens of text, 4 layers over 64 patches of 8x8 pixels."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH, intermediate_size=3 * VISION_WIDTH, num_hidden_layers=4, num_attention_heads=4,
        image_size=64, patch_size=64 // GRID, projection_dim=WIDTH,
    )  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH))


def scene_codes(scenes: list[Scene]) -> Tensor:
    """[n, kinds, facts] of 0 and 1: whether a kind is there, and its colour, size, count and place."""
    codes = np.zeros((len(scenes), len(KINDS), NUM_FACTS), np.uint8)
    for index, scene in enumerate(scenes):
        for thing, positions in zip(scene.things, _thing_positions(scene), strict=True):
            facts = [0, 1 + COLOURS.index(thing.colour), 9 + SIZES.index(thing.size), 11 + thing.count]
            facts += [16 + POSITION_NAMES.index(name) for name in positions]
            codes[index, KINDS.index(thing.kind), facts] = 1
    return torch.from_numpy(codes)


def _thing_positions(scene: Scene) -> list[tuple[str, ...]]:
    other = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    if not scene.relations:
        return [()]
    if scene.relations == ("on",):
        return [("top", "bearing"), ("bottom", "bearing")]
    first = {"above": "top", "below": "bottom"}.get(scene.relations[0], scene.relations[0])
    if len(scene.things) == 2:
        return [(first,), (other[first],)]
    third = {"above": "top", "below": "bottom"}[scene.relations[1]]
    return [(first, other[third]), (other[first], other[third]), (third,)]


class ClipLearner(nn.Module):
    """The CLIP, and read-outs of the true scene from its towers, which are only for training."""

    def __init__(self, clip: CLIPModel) -> None:
        """Read-outs for patches, for noun positions and for both pooled vectors."""
        super().__init__()
        self.clip = clip
        self.cells = nn.Linear(VISION_WIDTH, sum(FIELDS))
        self.nouns = nn.Linear(WIDTH, len(KINDS) + len(COLOURS) + len(SIZES) + 4)
        self.code = nn.Linear(WIDTH, len(KINDS) * NUM_FACTS)
        self.background = nn.Linear(WIDTH, len(BACKGROUNDS))

    def losses(
        self, inputs: Tensor, ids: Tensor, noun: Tensor, kinds: Tensor, cells: Tensor, truth: Tensor,
        backgrounds: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """All terms for a batch of pictures [n, 3, 64, 64] with captions [n, length]."""
        with autocast():
            vision = self.clip.vision_model(inputs)
            image = self.clip.visual_projection(vision.pooler_output).float()
            states = self.clip.text_model(ids)
            text = self.clip.text_projection(states.pooler_output).float()
            patches = self.cells(vision.last_hidden_state[:, 1:]).float()
        logits = self.clip.logit_scale.exp() * F.normalize(text) @ F.normalize(image).T
        labels = torch.arange(len(ids))
        cell_terms = cell_losses(patches.transpose(1, 2).unflatten(2, (GRID, GRID)), cells)
        both = torch.cat([image, text])
        code = self.code(both)
        return {
            "contrast": F.cross_entropy(logits, labels) / 2 + F.cross_entropy(logits.T, labels) / 2,
            "code": 60 * F.binary_cross_entropy_with_logits(code, truth.flatten(1).float().repeat(2, 1)),
            "background": 0.3 * F.cross_entropy(self.background(both), backgrounds.repeat(2)),
            "cells": 0.3 * torch.stack(list(cell_terms.values())).sum(),
            "nouns": noun_loss(self.nouns, states.last_hidden_state.float(), noun, kinds, truth),
        }


def noun_loss(readout: nn.Module, states: Tensor, noun: Tensor, kinds: Tensor, truth: Tensor) -> Tensor:
    """Kind, colour, size and number of a thing, from the state [n, length, d] where its phrase ends."""
    row, thing = (noun >= 0).nonzero(as_tuple=True)
    kind, fields = kinds[row, thing], [len(COLOURS), len(SIZES), 4]
    logits = torch.split(readout(states[row, noun[row, thing].long()]), [len(KINDS), *fields], 1)
    facts = torch.split(truth[row, kind].long(), [1, *fields, len(POSITION_NAMES)], 1)
    targets = (kind, *(each.argmax(1) for each in facts[1:4]))
    losses = [F.cross_entropy(found, target) for found, target in zip(logits, targets, strict=True)]
    return 0.3 * (losses[0] + losses[1] + losses[2] + losses[3])


def thing_kinds(scenes: list[Scene]) -> Tensor:
    """[n, 3] indices into KINDS of the scenes' things, 0 where there is none."""
    return torch.tensor([[KINDS.index(t.kind) for t in s.things] + [0] * (3 - len(s.things)) for s in scenes])


@dataclass(frozen=True)
class CaptionBatch:
    """The scenes `rows` of a step and their captions, cut to the longest: causal towers do not see padding."""

    rows: NDArray[np.intp]
    ids: Tensor
    noun: Tensor

    @classmethod
    def of_step(cls, scenes: list[Scene], tokenizer: CLIPTokenizer, seed: int, step: int) -> "CaptionBatch":
        """Every scene has `EDITIONS` captions, one after the other over the epochs."""
        rows = np.sort(batch_rows(len(scenes), BATCH, seed, step))
        edition = (step * BATCH // len(scenes) + step) % EDITIONS + 1
        texts = english_captions(scenes, seed + 10**8 * edition, rows)
        captions = tokenise_captions([scenes[row] for row in rows], texts, tokenizer)
        return cls(rows, captions.ids[:, : int(captions.length.max())], captions.noun)


def train_clip(
    data: SceneSet, tokenizer: CLIPTokenizer, config: TrainingConfig, seed: int, folder: Path
) -> tuple[CLIPModel, float]:
    """A trained CLIP, and its CPU seconds."""
    torch.manual_seed(seed)
    scenes, truth = data.scenes, scene_codes(data.scenes)
    learner = ClipLearner(new_clip(tokenizer))
    learner.clip.set_attn_implementation("eager")  # on a CPU in bf16 its backward pass takes half of sdpa's time
    kinds = thing_kinds(scenes)

    def losses(step: int) -> dict[str, Tensor]:
        batch = CaptionBatch.of_step(scenes, tokenizer, seed, step)
        rows, inputs = batch.rows, as_input(data.images[batch.rows])
        return learner.losses(
            inputs, batch.ids, batch.noun, kinds[rows], data.cells[rows], truth[rows], data.backgrounds[rows]
        )

    seconds = fit("clip", learner, config, losses, folder)
    return learner.clip, seconds


@torch.no_grad()
def clip_image_features(clip: CLIPModel, images: NDArray[np.uint8], chunk: int = 256) -> Tensor:
    """L2-normalised [n, 256] of pictures [n, 64, 64, 3]."""
    starts = range(0, len(images), chunk)
    features = [clip.get_image_features(as_input(images[start : start + chunk])).pooler_output for start in starts]
    return F.normalize(torch.cat(features))


@torch.no_grad()
def clip_text_features(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str], chunk: int = 256) -> Tensor:
    """L2-normalised [n, 256] of texts, padded to 77 tokens."""
    features = []
    for start in range(0, len(texts), chunk):
        batch = texts[start : start + chunk]
        ids = tokenizer(batch, padding="max_length", truncation=True, return_tensors="pt").input_ids
        features.append(clip.get_text_features(ids).pooler_output)
    return F.normalize(torch.cat(features))


def recall_at_1(queries: Tensor, gallery: Tensor, owner: Tensor) -> float:
    """The share of queries whose nearest row of the gallery is their owner."""
    return float((queries @ gallery.T).argmax(1).eq(owner).float().mean())


def new_text_tower(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A stock text tower with projection, wider and with a layer less than the first CLIP's."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=SECOND_WIDTH, intermediate_size=2 * SECOND_WIDTH,
        num_hidden_layers=SECOND_LAYERS, num_attention_heads=5, max_position_embeddings=77, hidden_act="gelu",
        projection_dim=SECOND_WIDTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


class TextLearner(nn.Module):
    """The text tower, and read-outs that are only for training; nouns are read from the states that a UNet reads."""

    def __init__(self, tower: CLIPTextModelWithProjection) -> None:
        """A linear map takes the image features into the tower's space."""
        super().__init__()
        self.tower = tower
        self.image = nn.Linear(WIDTH, SECOND_WIDTH, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.66))
        self.nouns = nn.Sequential(
            nn.LayerNorm(SECOND_WIDTH), nn.Linear(SECOND_WIDTH, len(KINDS) + len(COLOURS) + len(SIZES) + 4)
        )
        self.code = nn.Linear(SECOND_WIDTH, len(KINDS) * NUM_FACTS)
        self.background = nn.Linear(SECOND_WIDTH, len(BACKGROUNDS))

    def losses(
        self, images: Tensor, ids: Tensor, noun: Tensor, kinds: Tensor, truth: Tensor, backgrounds: Tensor
    ) -> dict[str, Tensor]:
        """All terms for a batch of image features [n, 256] with captions [n, length]."""
        with autocast():
            output = self.tower(ids, output_hidden_states=True)
        text, states = output.text_embeds.float(), output.hidden_states[-2].float()
        logits = self.scale.exp() * F.normalize(text) @ F.normalize(self.image(images)).T
        labels = torch.arange(len(ids))
        return {
            "contrast": F.cross_entropy(logits, labels) / 2 + F.cross_entropy(logits.T, labels) / 2,
            "code": 60 * F.binary_cross_entropy_with_logits(self.code(text), truth.flatten(1).float()),
            "background": 0.3 * F.cross_entropy(self.background(text), backgrounds),
            "nouns": noun_loss(self.nouns, states, noun, kinds, truth),
        }


def train_text_tower(
    data: SceneSet, clip: CLIPModel, tokenizer: CLIPTokenizer, config: TrainingConfig, seed: int, folder: Path
) -> tuple[TextLearner, float]:
    """A tower trained on the scenes' captions and the image features of `clip`, with its read-outs; its CPU seconds."""
    torch.manual_seed(seed + 1)
    learner = TextLearner(new_text_tower(tokenizer))
    learner.tower.set_attn_implementation("eager")  # as for the first CLIP
    truth, kinds = scene_codes(data.scenes), thing_kinds(data.scenes)
    images = cache(lambda: clip_image_features(clip, data.images))  # not needed where nothing is left to train

    def losses(step: int) -> dict[str, Tensor]:
        batch = CaptionBatch.of_step(data.scenes, tokenizer, seed, step)
        rows = batch.rows
        return learner.losses(images()[rows], batch.ids, batch.noun, kinds[rows], truth[rows], data.backgrounds[rows])

    seconds = fit("clip-2", learner, config, losses, folder)
    return learner, seconds
