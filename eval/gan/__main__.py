"""`python -m eval.gan train | draw`: DCGANs and a text-conditional GAN on pictures of the miniature.

`train` needs nothing but the repository. `draw` puts a student's text vector in the place of the teacher's.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import opencc
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray

from data.cli import UserError, command_line, commit, run_cli, versions
from data.files import check_out, hashes, read_json, write_json
from data.miniature import ASSETS
from data.miniature.corpus import TEST_CAPTION_SEED, TRAIN_SEED, caption_pair, sample_test_scenes
from data.miniature.render import render_batch
from data.miniature.scene import COLOURS, KINDS, Scene, sample_scenes
from distill.api import load_student
from eval.gan.networks import (
    NOISE_DIM,
    GanConfig,
    Kind,
    TrainedGenerator,
    check_text_width,
    draw_texts,
    load_trained_generator,
)
from eval.gan.train import GanTraining, Score, TrainingImages, image_vectors, train_gan
from eval.generation.__main__ import write_comparison
from eval.generation.compare import GenerationComparison, measure_scenes, prompt_texts, psnr, summarise
from eval.generation.prompts import Prompt, read_prompts
from eval.generation.recogniser import FIELDS, Recogniser, as_input, load_recogniser, recognise
from eval.miniature.dataset import cached_array, english_captions, rendered_images
from eval.miniature.train_images import recogniser_scores

TRAININGS: dict[Kind, GanTraining] = {
    "dcgan": GanTraining(steps=3000, generator_lr=8e-4, discriminator_lr=2e-4),
    "mixture": GanTraining(steps=3000, l1=30.0, l1_steps=400),
    "conditional": GanTraining(steps=3000, l1=30.0, l1_steps=400),
}
CONFIDENT = 0.9
TESTED = 1000  # pictures that are read


@dataclass(frozen=True)
class SurestThings:
    """Of each picture the thing that the recogniser is surest of, as indices `kind` and `colour` [n].

    `confidence` [n] is the product of the probabilities of presence, kind and colour.
    """

    confidence: NDArray[np.float32]
    kind: NDArray[np.int64]
    colour: NDArray[np.int64]


@torch.no_grad()
def surest_things(recogniser: Recogniser, pictures: NDArray[np.uint8], chunk: int = 256) -> SurestThings:
    """Read pictures [n, 64, 64, 3]."""
    cells = torch.cat([recogniser(part)[0].flatten(2) for part in torch.split(as_input(pictures), chunk)])
    presence, _, kind, colour, _ = torch.split(cells, FIELDS, dim=1)
    kinds, colours = kind.softmax(1).max(1), colour.softmax(1).max(1)
    confidence, cell = (presence[:, 0].sigmoid() * kinds.values * colours.values).max(1)
    chosen = [each.indices.gather(1, cell[:, None])[:, 0].numpy() for each in (kinds, colours)]
    return SurestThings(confidence.numpy(), *chosen)


def known_thing_scores(things: SurestThings, renders: SurestThings) -> dict[str, float]:
    """Share of pictures with a known thing; kinds and colours among those, and total variation from the renders'."""
    known, rendered = things.confidence >= CONFIDENT, renders.confidence >= CONFIDENT
    scores = {"known": float(known.mean())}
    fields = (("kind", things.kind, renders.kind, len(KINDS)), ("colour", things.colour, renders.colour, len(COLOURS)))
    for name, drawn, true, count in fields:
        shares = [np.bincount(each, minlength=count) / max(1, len(each)) for each in (drawn[known], true[rendered])]
        scores[f"{name}s"] = int((shares[0] > 0).sum())
        scores[f"{name}_distance"] = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return scores


def one_thing_scenes(scenes: list[Scene]) -> list[Scene]:
    """The scenes of a single kind of thing: all that the GANs draw."""
    return [scene for scene in scenes if len(scene.things) == 1]


def training_images(kind: Kind, scenes: int, seed: int, work: Path) -> TrainingImages:
    """Renders of the training split; with `image_vectors`, or the teacher's text vectors of English captions."""
    chosen = one_thing_scenes(sample_scenes(scenes, TRAIN_SEED, "train"))
    images = rendered_images(chosen, 10**6, work / f"renders-{scenes}.npy")
    if kind == "dcgan":
        return TrainingImages(images)
    if kind == "mixture":
        number = len(images)
        path, shape = work / f"vectors-{scenes}.npy", (number, NOISE_DIM)
        vectors = cached_array(path, np.float32, shape, lambda _: image_vectors(images), number)
        return TrainingImages(images, range(number), torch.tensor(vectors))
    captions = english_captions(chosen, seed)
    return TrainingImages(images, captions, torch.from_numpy(load_student(ASSETS / "clip").encode(captions)))


def scorer(kind: Kind) -> Score:
    """What the recogniser reads: unconditional beside unseen renders; conditional under the teacher's English.

    Unseen scenes are of a combination of kind, colour and background that training never shows.
    """
    recogniser, scenes = load_recogniser(ASSETS / "recogniser"), one_thing_scenes(sample_test_scenes(TESTED))
    noise = torch.randn(TESTED, NOISE_DIM, generator=torch.Generator().manual_seed(1))
    if kind != "conditional":
        renders = surest_things(recogniser, render_batch(scenes, range(len(scenes))))
        return lambda trained: known_thing_scores(surest_things(recogniser, trained.draw(noise)), renders)
    texts = [caption_pair(scene, "caption", TEST_CAPTION_SEED + i, "train").en for i, scene in enumerate(scenes)]
    text = torch.from_numpy(load_student(ASSETS / "clip").encode(texts))

    def right(trained: TrainedGenerator) -> dict[str, float]:
        scores = recogniser_scores(recogniser, scenes, trained.draw(noise[: len(scenes)], text))
        return {key: scores[key] for key in ("things", "counts", "background")}

    return right


def train(
    kind: Kind,
    out: Path,
    work: Path | None = None,
    steps: int | None = None,
    batch_size: int = GanTraining.batch_size,
    width: int = GanConfig.width,
    wrong_pairs: bool = True,
    scenes: int = 60_000,
    seed: int = 0,
    threads: int = 2,
) -> None:
    """Train a GAN on renders of the miniature's world, and score it.

    The same command resumes, and one of more steps goes on.

    Args:
        kind: dcgan; mixture, whose noise lies around the teacher's image vectors; or conditional, which reads its text.
        out: Folder of checkpoint, generator, metrics, sample sheets and scores.
        work: Folder where renders are kept; by default `out`.
        steps: Length; by default the kind's own.
        batch_size: Pictures a step.
        width: Channels at 32x32.
        wrong_pairs: Show the discriminator real pictures under wrong texts; false is the ablation.
        scenes: Scenes to sample; those of one thing, about a quarter, are rendered.
        seed: Of weights, noise and order.
        threads: Of torch.
    """
    stored = out / "settings.json"
    check_out("--out", out, lambda folder: stored.is_file())
    training = replace(
        TRAININGS[kind],
        steps=TRAININGS[kind].steps if steps is None else steps,
        batch_size=batch_size, wrong_pairs=wrong_pairs, seed=seed,
    )  # fmt: skip
    least = 8 * max(batch_size, NOISE_DIM * (kind == "mixture"))  # so that a quarter gives a batch, or 100 components
    if min(training.steps, batch_size - 1, width, threads) < 1 or scenes < least:
        raise UserError(f"--steps, --width, --threads are at least 1, --batch_size 2, --scenes {least}")
    config = GanConfig(kind, width, NOISE_DIM if kind == "mixture" else GanConfig.text_dim)
    settings = {**asdict(config), **asdict(training), "scenes": scenes}
    if stored.is_file() and {**read_json(stored), "steps": training.steps} != settings:
        raise UserError(f"--out {out}: a training with other settings ({stored.name}) is there; name a new folder")
    torch.set_num_threads(threads)
    out.mkdir(exist_ok=True)
    write_json(settings, stored)
    score = scorer(kind)
    seconds = train_gan(config, training, training_images(kind, scenes, seed, work or out), score, out)
    scores = score(load_trained_generator(out))
    about = {"seconds": round(seconds), "command": command_line("eval.gan", None), "commit": commit()}
    write_json({"scores": scores, "settings": {**settings, **about, "versions": versions()}}, out / "scores.json")
    print(json.dumps(scores, indent=1))


def draw(
    student: str,
    prompts: Path,
    out: Path,
    model: Path = ASSETS / "gan" / "conditional",
    clip: str = str(ASSETS / "clip"),
    limit: int | None = None,
    seeds: int = 4,
    shown: int = 8,
) -> None:
    """Draw prompts under the teacher's and a student's text vectors from the same noise; write pictures and verdict.

    The student's rows are English, Chinese, mixed prompts where the file has them, and traditional characters.

    Args:
        student: Exported student: folder or Hub id.
        prompts: JSON lines with en, zh, maybe mixed and scene; scenes of several things are left out.
        out: Folder of result.json, grid.png and pictures/; an earlier result there is replaced.
        model: Folder of a conditional generator.
        clip: The teacher.
        limit: Use the first prompts only.
        seeds: Pictures a prompt and conditioning.
        shown: Prompts whose pictures are kept.
    """
    trained = load_trained_generator(model)
    check_out("--out", out, {"result.json", "grid.png", "pictures"})
    chosen = [each for each in read_prompts(prompts) if each.scene is None or len(each.scene.things) == 1][:limit]
    if not chosen or min(seeds, shown) < 1:
        raise UserError(f"--prompts {prompts}: no scene of one thing in it; or --limit, --seeds or --shown is below 1")
    encoders = {"teacher": load_student(clip, key="--clip"), "student": load_student(student, key="--student")}
    for side, encoder in encoders.items():
        check_text_width(encoder, trained, {"teacher": "--clip", "student": "--student"}[side])
    traditional = [opencc.OpenCC("s2t").convert(prompt.zh) for prompt in chosen]
    noise = torch.randn(seeds * len(chosen), NOISE_DIM, generator=torch.Generator().manual_seed(0))
    pictures = {
        name: draw_texts(trained, encoders[name.split("-")[0]], texts * seeds, noise)
        for name, texts in {**prompt_texts(chosen), "student-traditional": traditional}.items()
    }
    settings = {
        "model": str(model), "student": student, "prompts": len(chosen), "seeds": seeds, "commit": commit(),
        "sha256": hashes([model / "model.safetensors", prompts]), "versions": versions(),
        "command": command_line("eval.gan", None),
    }  # fmt: skip
    comparison = compare_pictures(pictures, chosen, seeds, shown)
    result = {**summarise(comparison), "settings": settings}
    write_comparison(out, comparison, chosen, result)
    print(json.dumps({key: value for key, value in result.items() if key.startswith(("psnr", "things"))}, indent=1))


def compare_pictures(
    pictures: dict[str, NDArray[np.uint8]], prompts: list[Prompt], seeds: int, shown: int
) -> GenerationComparison:
    """Measures of pictures [seeds * prompts, 64, 64, 3] by conditioning, the teacher's English first."""
    values: dict[str, Any] = {}
    if all(prompt.scene for prompt in prompts):
        recogniser = load_recogniser(ASSETS / "recogniser")
        values = measure_scenes(lambda drawn: recognise(recogniser, drawn), prompts * seeds, pictures)
    first, *others = pictures
    values["psnr"] = {name: psnr(pictures[first], pictures[name]) for name in others}
    return GenerationComparison(
        {m: {name: each.reshape(seeds, -1).T for name, each in by_name.items()} for m, by_name in values.items()},
        {name: drawn[: min(shown, len(prompts))] for name, drawn in pictures.items()},
        {},
    )


def main(arguments: list[str] | None = None) -> None:
    """Train or draw."""
    auto_cli({"train": train, "draw": draw}, args=arguments, as_positional=False, exit_on_error=False)


if __name__ == "__main__":
    run_cli(main)
