"""The GANs: shapes as published, losses by hand, pairs that are wrong, resume, and the commands."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import CLIPModel

from data.cli import UserError
from data.miniature.corpus import caption_pair, write_lines
from data.miniature.render import render_batch
from data.miniature.scene import COLOURS, KINDS, Scene, Thing, sample_scenes, scene_json
from eval.gan.__main__ import SurestThings, known_thing_scores, main, scorer, surest_things, training_images
from eval.gan.networks import (
    CENTRES,
    Discriminator,
    GanConfig,
    Generator,
    Kind,
    TrainedGenerator,
    load_trained_generator,
    save_generator,
)
from eval.gan.train import (
    GanTrainer,
    GanTraining,
    TrainingImages,
    hinge_loss,
    log_loss,
    train_gan,
    wrong_rows,
)
from eval.generation.recogniser import load_recogniser
from eval.miniature.train_clip import clip_image_features
from eval.report.__main__ import main as report

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "data" / "miniature" / "assets"
SHORT = GanTraining(steps=4, batch_size=4, l1=1.0, l1_steps=3, sample_every=2, save_seconds=1000)


def images(kind: Kind, number: int = 70) -> TrainingImages:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (number, 64, 64, 3), np.uint8)
    if kind == "dcgan":
        return TrainingImages(pictures)
    vectors = F.normalize(torch.from_numpy(random.normal(size=(number, 100)).astype(np.float32)))
    return TrainingImages(pictures, [f"picture {row // 2}" for row in range(number)], vectors)


def test_shapes_are_those_of_the_paper() -> None:
    generator, discriminator = Generator(GanConfig("dcgan", width=128)), Discriminator(GanConfig("dcgan", width=128))
    shapes = []
    for layer in generator.layers:
        layer.register_forward_hook(lambda _layer, _input, output: shapes.append(tuple(output.shape[1:])))
    pictures = generator(torch.randn(2, 100))
    assert list(dict.fromkeys(shapes)) == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]
    assert pictures.abs().max() <= 1
    assert [logits.shape for logits in discriminator(pictures)] == [(2,)]
    assert discriminator.layers(pictures).shape == (2, 1024, 4, 4)
    kinds = [type(layer).__name__ for layer in discriminator.layers]
    assert kinds == ["Conv2d", "LeakyReLU", *["Conv2d", "BatchNorm2d", "LeakyReLU"] * 3]


def test_the_conditional_pair_reads_its_text_and_the_picture_once() -> None:
    config = GanConfig("conditional", width=4, text_dim=8)
    torch.manual_seed(0)
    generator, discriminator = Generator(config).eval(), Discriminator(config).eval()
    noise, text, other = torch.randn(3, 100), *torch.randn(2, 3, 8)
    assert not torch.equal(generator(noise, text), generator(noise, other))
    pictures, reads = torch.rand(3, 3, 64, 64), []
    discriminator.layers.register_forward_hook(lambda *_: reads.append(1))
    right, wrong = discriminator(pictures, text, other)
    assert len(reads) == 1
    assert torch.equal(right, discriminator(pictures, text)[0])
    assert not torch.equal(right, wrong)


def test_the_noise_of_a_mixture_lies_around_its_centres(tmp_path: Path) -> None:
    data = images("mixture")
    trainer = GanTrainer(GanConfig("mixture", 4, 100), SHORT, data)
    trainer.save(tmp_path)
    trained, plain = load_trained_generator(tmp_path), Generator(GanConfig("dcgan", 4)).eval()
    plain.layers.load_state_dict(trained.generator.layers.state_dict())
    assert data.vectors is not None
    torch.testing.assert_close(trained.generator.centres[69:71], data.vectors[[69, 0]], atol=1e-4, rtol=1e-3)
    noise = torch.randn(CENTRES + 1, 100)
    noise[CENTRES] = noise[0]
    drawn = trained.draw(noise)
    assert np.array_equal(drawn[0], drawn[CENTRES])  # the centres come in turn
    assert not np.array_equal(drawn[0], drawn[70])
    mixed = 0.75**0.5 * 10 * trained.generator.centres[:2] + 0.5 * noise[:2]  # entries of a centre are 0.1 large
    assert np.array_equal(drawn[:2], TrainedGenerator(plain, GanConfig("dcgan", 4)).draw(mixed))


def test_image_vectors_are_principal_components_of_what_the_teacher_sees(tmp_path: Path) -> None:
    data = training_images("mixture", 800, 0, tmp_path)
    assert data.vectors is not None
    assert data.vectors.shape == (len(data.images), 100)
    torch.testing.assert_close(data.vectors.norm(dim=1), torch.ones(len(data.images)))
    clip: Any = CLIPModel.from_pretrained(ASSETS / "clip")
    features = clip_image_features(clip.eval(), data.images)
    cosines = F.normalize(features - features.mean(0)) @ F.normalize(features - features.mean(0)).T
    assert (data.vectors @ data.vectors.T - cosines).abs().max() < 0.02  # a rotation, but for the smallest components


def test_losses_by_hand() -> None:
    real, drawn, wrong = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0]), torch.tensor([0.0, -0.5])
    assert hinge_loss(real, drawn) == (0 + 0.5) / 2 + (0 + 2) / 2
    assert hinge_loss(real, drawn, wrong) == 0.25 + (1 + (1 + 0.5) / 2) / 2
    even = log_loss(torch.zeros(2), torch.zeros(2))
    assert even.item() == pytest.approx(2 * np.log(2))
    best = torch.tensor([np.log(9.0)], requires_grad=True)  # where the sigmoid is 0.9
    assert torch.autograd.grad(log_loss(best, drawn), best)[0].item() == pytest.approx(0, abs=1e-6)


def test_a_wrong_text_is_never_the_same_caption() -> None:
    captions = ["cat", "cat", "dog", "cat", "key", "dog"]
    assert wrong_rows(captions) == [2, 2, 3, 4, 5, 0]
    data = images("conditional")
    trainer = GanTrainer(GanConfig("conditional", 4, 100), SHORT, data)
    right, wrong = trainer.vectors(np.arange(70))
    assert (right != wrong).any(1).all()
    assert all(data.sources[row] != data.sources[other] for row, other in enumerate(wrong_rows(data.sources)))
    assert len(GanTrainer(trainer.config, replace(SHORT, wrong_pairs=False), data).vectors(np.arange(4))) == 1


@pytest.mark.parametrize("kind", ["dcgan", "mixture", "conditional"])
def test_training_resumes_bit_for_bit(kind: Kind, tmp_path: Path) -> None:
    config, data = GanConfig(kind, width=4, text_dim=100), images(kind)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_gan(config, SHORT, data, lambda _: {"score": 0.5}, whole)
    first = GanTrainer(config, SHORT, data)
    for step in range(2):
        first.step(step)
    first.save(halves)
    killed = [{"step": 2, "score": 0.5}, {"step": 4, "score": 0.1}]  # logged after the checkpoint
    (halves / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in killed))
    train_gan(config, SHORT, data, lambda _: {"score": 0.5}, halves)
    one, two = (load_file(folder / "state.safetensors") for folder in (whole, halves))
    assert one.keys() == two.keys()
    assert [key for key in one if not key.endswith("seconds") and not torch.equal(one[key], two[key])] == []
    for folder in (whole, halves):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert rows == [{"step": 2, "score": 0.5}, {"step": 4, "score": 0.5}]
    sheets = [Image.open(path).size for path in sorted((whole / "samples").iterdir())]
    assert sheets == [(512, 512)] * 2


def test_the_generator_that_is_stored_is_the_average(tmp_path: Path) -> None:
    trainer = GanTrainer(GanConfig("dcgan", width=4), SHORT, images("dcgan"))
    before = trainer.generator.state_dict()["layers.0.weight"].clone()
    trainer.step(0)
    after = trainer.generator.state_dict()["layers.0.weight"]
    expected = before + (after - before) * (1 - 2 / 11)  # the average keeps (1 + step) / (10 + step) at first
    trainer.save(tmp_path)
    stored = load_trained_generator(tmp_path).generator.state_dict()
    torch.testing.assert_close(stored["layers.0.weight"], expected, atol=1e-4, rtol=1e-3)
    assert load_file(tmp_path / "model.safetensors")["layers.0.weight"].dtype == torch.float16


def test_known_things_of_renders_and_of_noise() -> None:
    recogniser, scenes = load_recogniser(ASSETS / "recogniser"), sample_scenes(64, 3, "test")
    renders = surest_things(recogniser, render_batch(scenes, range(64)))
    scores = known_thing_scores(renders, renders)
    assert scores["known"] > 0.9
    assert (scores["kind_distance"], scores["colour_distance"]) == (0, 0)
    static = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)
    assert (
        known_thing_scores(surest_things(recogniser, static), renders)["known"] < 0.5
    )  # the recogniser never saw noise
    one = SurestThings(np.array([0.9, 0.95, 0.2], np.float32), np.array([0, 1, 2]), np.array([3, 3, 4]))
    two = SurestThings(np.array([0.9, 0.95], np.float32), np.array([1, 1]), np.array([3, 5]))
    expected = {"known": 2 / 3, "kinds": 2, "kind_distance": 0.5, "colours": 1, "colour_distance": 0.5}
    assert known_thing_scores(one, two) == pytest.approx(expected)


def test_the_shipped_generators_are_what_their_card_says() -> None:
    card = json.loads((ASSETS / "scores-gan.json").read_text())
    scores = scorer("mixture")(load_trained_generator(ASSETS / "gan" / "mixture"))
    assert scores["known"] == pytest.approx(card["mixture"]["seed 0, shipped, 3000 steps"]["known"], abs=0.02)
    assert scores["known"] > 0.55
    assert (scores["kinds"], scores["colours"]) == (32, 8)
    scores = scorer("conditional")(load_trained_generator(ASSETS / "gan" / "conditional"))
    things = card["conditional"]["seed 0, shipped, 3000 steps"]["things"]
    assert scores["things"] == pytest.approx(things, abs=0.02)
    assert scores["things"] > 0.75
    assert sum(path.stat().st_size for path in (ASSETS / "gan").rglob("*.safetensors")) < 8e6


def write_generator(folder: Path, kind: Kind, text_dim: int = 256) -> Path:
    config = GanConfig(kind, width=4, text_dim=text_dim)
    torch.manual_seed(0)
    generator = Generator(config).eval()
    for weight in generator.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # so that texts make a difference
    save_generator(TrainedGenerator(generator, config), folder)
    return folder


def write_prompts(path: Path) -> Path:
    rows = []
    for index in range(4):
        things = tuple(Thing(KINDS[index + each], COLOURS[index]) for each in range(1 + index % 2))
        scene = Scene(things, "snow", ("left",) * (len(things) - 1))
        pair, mixed = (caption_pair(scene, "prompt", index, "train", mixed=each) for each in (False, True))
        rows.append({"en": pair.en, "zh": pair.zh, "mixed": mixed.zh, "scene": scene_json(scene)})
    write_lines(path, rows)
    return path


def test_draw_writes_pictures_and_a_verdict_that_the_report_shows(tmp_path: Path) -> None:
    model, prompts = write_generator(tmp_path / "model", "conditional"), write_prompts(tmp_path / "prompts.jsonl")
    out, clip = tmp_path / "drawn", str(ASSETS / "clip")
    main(["draw", "--model", str(model), "--student", clip, "--prompts", str(prompts), "--out", str(out),
          "--seeds", "2"])  # fmt: skip
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["settings"]["prompts"] == 2  # two scenes of the four hold one thing
    assert set(result["things"]) == {
        "teacher-en",
        "student-en",
        "student-zh",
        "student-mixed",
        "student-traditional",
    }
    assert result["psnr"]["student-en"]["mean"] == 99  # this student is the teacher
    assert result["psnr"]["student-zh"]["mean"] < 99
    assert (out / "grid.png").is_file()
    assert len(list((out / "pictures").iterdir())) == 2 * 5
    report([str(out), "--out", str(tmp_path / "report.html")])
    assert "things as in the prompt" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_mistakes_of_draw_are_one_line(tmp_path: Path, clip: Path) -> None:
    prompts, teacher = write_prompts(tmp_path / "prompts.jsonl"), ASSETS / "clip"
    good, broken = (
        write_generator(tmp_path / "good", "conditional"),
        write_generator(tmp_path / "broken", "conditional"),
    )
    (broken / "config.json").write_text('{"kind": "stylegan"}')
    several = tmp_path / "several.jsonl"
    several.write_text("".join(prompts.read_text(encoding="utf-8").splitlines(keepends=True)[1::2]), encoding="utf-8")

    def error(model: Path = good, student: Path = teacher, prompts: Path = prompts, *more: str) -> str:
        arguments = ("draw", "--model", model, "--student", student, "--prompts", prompts, "--out", tmp_path / "out")
        with pytest.raises(UserError) as raised:
            main([*map(str, arguments), *more])
        return str(raised.value)

    assert "no model.safetensors" in error(tmp_path)
    assert "dcgan reads no text" in error(write_generator(tmp_path / "dcgan", "dcgan"))
    assert "config.json: kind" in error(broken)
    assert "--student: vectors of width 16; the generator reads 256" in error(student=clip)
    assert "no scene of one thing" in error(prompts=several)
    assert "--seeds" in error(good, teacher, prompts, "--seeds", "0")
    wide = write_generator(tmp_path / "wide", "conditional", 8)
    (wide / "config.json").write_text((good / "config.json").read_text())
    assert "not the weights of its config.json" in error(wide)


def test_mistakes_of_train_are_one_line(tmp_path: Path) -> None:
    arguments = ["train", "--kind", "dcgan", "--out", str(tmp_path / "out"), "--scenes", "500"]
    with pytest.raises(UserError, match="at least 1"):
        main([*arguments, "--steps", "0"])
    with pytest.raises(UserError, match="--scenes 512"):
        main(arguments)
    with pytest.raises(UserError, match="--scenes 800"):
        main([*arguments, "--kind", "mixture"])
    assert not (tmp_path / "out").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="something else is there"):
        main([*arguments, "--out", str(tmp_path / "other")])


def test_train_resumes_and_goes_on_with_more_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.gan.__main__.TESTED", 40)  # the scores' values do not matter here
    out = tmp_path / "out"
    arguments = ["train", "--kind", "conditional", "--out", str(out), "--batch_size", "4", "--width", "4",
                 "--scenes", "40", "--threads", "1"]  # fmt: skip
    main([*arguments, "--steps", "1"])
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores["scores"]) == {"things", "counts", "background"}
    assert scores["settings"]["wrong_pairs"] is True
    with pytest.raises(UserError, match="a training with other settings"):
        main([*arguments, "--seed", "1"])
    main([*arguments, "--steps", "2"])
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert load_trained_generator(out).config.kind == "conditional"
