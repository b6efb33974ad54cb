"""The commands on the pages, typed as they stand there, in a folder that holds what they name.

Only parsed, by `test_docs.py`: what needs many GPUs, hundreds of gigabytes or the hours of a full-size run.
"""

import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState, PartialState

from tests.distill.export.hub_server import TOKEN, running
from tests.distill.tiny_clip import captions, run_options
from tests.distill.tiny_xl import write_xl
from tests.eval.files import ENGLISH, IMAGES, KINDS, name, write_files
from tests.eval.random_pipeline import write_pipeline
from tests.eval.tiny import save_clip, save_translator
from tests.test_docs import OWN, ROOT, told

MAKING = (
    "data.build", "data.augment", "data.vocab", "data.translate",
    "distill.unet_geometry", "scripts/distill.py", "scripts/export.py",
)  # fmt: skip
LOOKING = (
    "data.inspect", "eval.flickr30k_cn", "eval.translation", "eval.pairs", "eval.prompts", "eval.generation",
    "eval.report", "eval.golden",
)  # fmt: skip
"""In the order of what a command reads that another one wrote, as are those above."""
PAGES = ("README.md", "corpus.md", "students.md", "losses.md", "evaluation.md", "recipe.md", "use.md")
TOO_BIG = (
    "--num_processes", "configs/corpus/skyclip-150m.yaml", "configs/sdxl.yaml", "--pipeline SDXL_PIPELINE",
    "--init STUDENT", "SDXL_STUDENT",
)  # fmt: skip


def typed(modules: tuple[str, ...], onnx: bool) -> list[tuple[str, str]]:
    """(module or script, rest of the command line) of the commands with ONNX or without; what is optional left out."""
    found = []
    for page, command in told():
        match = OWN.search(re.sub(r"\[[^\]]*\]", "", command))
        runs = page in PAGES and match is not None and not any(word in command for word in TOO_BIG)
        if match and runs and (match[1] or match[2]) in modules and re.search(r"\w", match[3]):
            found.append((match[1] or match[2], match[3]))
    order = sorted(dict.fromkeys(found), key=lambda each: modules.index(each[0]))
    return [each for each in order if ("onnx" in each[1] or "int8" in each[1]) == onnx]


def run(module: str, rest: str) -> None:
    """Run a command in this process; a mistake is a SystemExit. The file that it names by --out is there then."""
    words = ["308" if word == "N" else word for word in shlex.split(rest)]
    words += ["--title", "A few pictures"] if module == "eval.flickr30k_cn" else []  # the pages mean the whole set
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words])
        patch.setattr(sys, "path", list(sys.path))
        if module.endswith(".py"):
            runpy.run_path(str(ROOT / module), run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    for option in ("--out", "--out_dir", "--html", "--pipeline-out"):
        if option in words:
            assert Path(words[words.index(option) + 1]).exists(), rest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every file that the pages name, as small as it can be, and what the commands that make something make of it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("docs")
        patch.chdir(folder)
        patch.setenv("ACCELERATE_USE_CPU", "true")
        AcceleratorState._reset_state(reset_partial_state=True)
        write_stand_ins(folder)
        for module, rest in typed(MAKING, onnx=False):
            run(module, rest)
        for made, full in (("CORPUS", "runs/corpus"), ("RUN", "runs/sd15"), ("STUDENT", "runs/student")):
            shutil.copytree(made, full)
        yield folder
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


def write_stand_ins(folder: Path) -> None:
    """Captions, pictures, prompts, pairs, and random models."""
    files = write_files(folder)
    Path("runs").mkdir()
    for benchmark in ("CAPTIONS", "PATH"):
        shutil.copytree(files.chinese_clip, folder / benchmark)
    for source in (files.csv, files.csv.parent / "flickr30k-images"):
        source.rename(folder / source.name)
    shutil.copytree("flickr30k-images", "PICTURES")
    english = [{"id": name(n)[:-4], "img_path": name(n), "sentences": [ENGLISH[n % 6]]} for n in range(IMAGES)]
    prompts = [{"en": f"the {en}", "zh": f"一只{zh}"} for en, zh in zip(ENGLISH[:2], KINDS[:2], strict=True)]
    for name_of, rows in (("flickr30k.test.en.jsonl", english), ("prompts.jsonl", prompts)):
        Path(name_of).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    save_clip(folder / "TEACHER")
    shutil.copytree("TEACHER", "CLIP")
    shutil.copytree("TEACHER", "openai/clip-vit-large-patch14")
    write_pipeline(folder).rename("PIPELINE")
    shutil.copytree("PIPELINE", "CHECKPOINT")
    write_xl(folder).rename("SDXL_PIPELINE")
    save_translator(folder / "MODEL")
    Path("LINES.txt").write_text("A cat.\n", encoding="utf-8")
    pairs = [*captions(), ("room 35, floor 72", "12号房间，98楼")]  # the last is refused for its numbers
    Path("pairs.tsv").write_text("".join(f"{en}\t{zh}\n" for en, zh in pairs), encoding="utf-8")
    tsv = {"name": "pairs", "domain": "caption", "license": "CC0", "format": "tsv", "files": ["pairs.tsv"]}
    Path("CORPUS.yaml").write_text(yaml.safe_dump({"sources": [tsv]}), encoding="utf-8")
    config = run_options(folder / "TEACHER", folder / "CORPUS", folder / "RUN")
    config["train"] |= {"steps": 2, "eval_every": 2, "save_every": 2}
    config["losses"] = {"translation": {"zh_from_en": 1, "decoder": {"layers": 1, "heads": 2}}}
    Path("CONFIG.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def test_every_command_does_what_it_says(place: Path) -> None:
    assert {module for module, _ in [*typed(MAKING, False), *typed(LOOKING, False)]} == {*MAKING, *LOOKING}
    for module, rest in typed(LOOKING, onnx=False):
        if module == "eval.report" and not Path("DRAWN").exists():
            shutil.copytree("runs/drawn", "DRAWN")  # evaluation.md does not say which pipeline drew them
        run(module, rest)
    for page in ("report.html", "runs/report.html"):
        text = Path(page).read_text(encoding="utf-8")
        assert "student" in text
        assert text.count("<img") > IMAGES
        assert "<svg" in text


@pytest.mark.slow
def test_every_command_with_onnx_does_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export, score, export again with the scores, upload; once as evaluation.md has it and once as recipe.md."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    commands = typed((*MAKING, *LOOKING), onnx=True)
    before = [each for each in commands if "--results" not in each[1]]
    with running("user/name") as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        for module, rest in [*before, *(each for each in typed(LOOKING, onnx=False) if each[0] == "eval.flickr30k_cn")]:
            run(module, rest)
        for module, rest in commands:
            if "--results" in rest:
                run(module, rest)
        assert hub.commits
    for student in ("STUDENT", "runs/student"):
        assert "student as onnx/model_int8.onnx" in Path(student, "README.md").read_text(encoding="utf-8")
