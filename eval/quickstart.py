"""The whole way in minutes on a machine that has nothing: corpus, student, export, score.

The corpus is the miniature's bilingual grammar; the teacher is a tiny tower that this command trains on its English
(see `eval.scene_teacher`), so that retrieval is a question with an answer. Every stage is the shipped command, and a
stage whose output is there is not run again.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

import numpy as np
import yaml

from data.command import UserError
from data.miniature.language import REGISTERS, say
from data.miniature.scene import KINDS, draw_scenes
from data.miniature.words import NOUNS
from eval.scene_teacher import scene_features, train_teacher

REPOSITORY = Path(__file__).resolve().parents[1]
DOMAINS = {"verse": "poetry"}  # the others are domains by their own name
TRAIN_SCENES, TEST_SCENES, TEACHER_STEPS = 6000, 500, 500


def main(folder: Path = REPOSITORY / "runs" / "quickstart") -> None:
    """Run every stage below `folder` and print where the results are."""
    folder.mkdir(parents=True, exist_ok=True)
    print("quickstart: a small made-up world, and a tiny teacher that this command trains on its English")
    if not (folder / "corpus.yaml").is_file():
        _write_world(folder)
    if not (folder / "teacher" / "tokenizer.json").is_file():
        scenes = draw_scenes(TRAIN_SCENES, seed=1, split="train")
        captions = [say(s, REGISTERS[i % 5], i, "any").en for i, s in enumerate(scenes)]
        train_teacher(captions, scenes, TEACHER_STEPS, folder / "teacher")
    if not (folder / "corpus" / "report.json").is_file():
        _run("-m", "data.build", str(folder / "corpus.yaml"), "--out", str(folder / "corpus"))
    _run("scripts/distill.py", "--config", "configs/quickstart.yaml", "--teacher", str(folder / "teacher"),
         "--data.corpus", str(folder / "corpus"), "--out_dir", str(folder / "run"))  # fmt: skip
    _run("scripts/export.py", "--run", str(folder / "run"), "--out", str(folder / "student"))
    _run("-m", "eval.flickr30k_cn", "--student", str(folder / "student"), "--clip", str(folder / "teacher"),
         "--data", str(folder / "test.jsonl"), "--image-features", str(folder / "test.npz"),
         "--out", str(folder / "result.json"))  # fmt: skip
    print(_closing(json.loads((folder / "result.json").read_text(encoding="utf-8")), folder))


def _write_world(folder: Path) -> None:
    """Training pairs by register, a dictionary of the nouns, and the test scenes with their truth as features."""
    scenes = draw_scenes(TRAIN_SCENES, seed=1, split="train")
    pairs = [say(s, register, i, "train") for i, s in enumerate(scenes) for register in REGISTERS]
    for register in REGISTERS:
        _write_lines(folder / f"{register}.jsonl", ({"en": p.en, "zh": p.zh} for p in pairs if p.register == register))
    words = [{"en": en, "zh": zh} for kind in KINDS for en in NOUNS[kind].en.common for zh in NOUNS[kind].zh.common]
    _write_lines(folder / "dictionary.jsonl", words)
    test = draw_scenes(TEST_SCENES, seed=2, split="test")
    lots = Random(0)
    said = [say(scene, lots.choice(REGISTERS), i, "train", mixed=False) for i, scene in enumerate(test)]
    _write_lines(folder / "test.jsonl", ({"image": str(i), "zh": [p.zh], "en": [p.en]} for i, p in enumerate(said)))
    ids = np.array([str(i) for i in range(len(test))])
    np.savez(folder / "test.npz", ids=ids, features=scene_features(test))
    sources = [
        {"name": name, "domain": DOMAINS.get(name, name), "license": "made here", "format": "jsonl",
         "files": [f"{name}.jsonl"]}
        for name in (*REGISTERS, "dictionary")
    ]  # fmt: skip
    recipe = {"sources": sources, "benchmarks": ["test.jsonl"]}
    (folder / "corpus.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _run(*arguments: str) -> None:
    """Run one of the project's commands; its own error line has said what is wrong."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise UserError(f"quickstart: `python {' '.join(arguments)}` ended with code {done.returncode}")


def _closing(result: Mapping[str, list[dict[str, object]]], folder: Path) -> str:
    """The last line: the three numbers that matter, and where the rest is."""
    recall = {(row["model"], row["language"]): row["mr"] for row in result["rows"]}
    ceiling, student, floor = (recall[key] for key in (("teacher", "en"), ("student", "zh"), ("teacher", "zh")))
    return (
        f"mean recall: teacher on English {ceiling:.1f}, student on Chinese {student:.1f}, "
        f"teacher on Chinese {floor:.1f}; see {folder / 'result.json'}"
    )
