"""What README and docs tell a reader to type: options exist, Python runs, links lead somewhere."""

import contextlib
import functools
import io
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from distill.export.folder import export
from distill.losses.base import LossInput
from distill.text_tower import EncoderOutput
from eval.datasets.benchmark import BENCHMARKS
from tests.distill.tiny_xl import write_xl
from tests.eval.random_pipeline import write_pipeline
from tests.eval.tiny import WIDTH, text_half, tiny_clip, tiny_student_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").rglob("CARD.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]*)`")
OWN = re.compile(r"(?:-m ((?:data|distill|eval)[\w.]*)|(scripts/\w+\.py))(.*)")


def told() -> list[tuple[str, str]]:
    """Every command of ours on any page, as (page, command), comments and continued lines put right."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = [body for kind, body in FENCED.findall(text) if kind != "python"]
        lines = "\n".join(fenced).replace("\\\n", " ").splitlines()
        quoted = [" ".join(each.split()) for each in INLINE.findall(FENCED.sub("", text))]
        commands = [each.split("  #")[0].strip() for each in (*lines, *quoted)]
        found += [(page.name, each) for each in commands if re.match(r"(\S*python|accelerate launch) ", each)]
    return found


@functools.cache
def options(module: str, script: str, part: str) -> str:
    """What the real parser of a module or script says of itself; `part` is the first word after a script of parts."""
    said, before = io.StringIO(), (sys.argv, list(sys.path))
    sys.argv = [module or script, *([part] if part else []), "--help"]
    run = (
        functools.partial(runpy.run_module, module) if module else functools.partial(runpy.run_path, str(ROOT / script))
    )
    try:
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as stopped:
            run(run_name="__main__")
        assert stopped.value.code in (0, None)
    finally:
        sys.argv, sys.path[:] = before
    return said.getvalue()


@pytest.mark.parametrize(("page", "command"), [pytest.param(*each, id=f"{each[0]}: {each[1][:60]}") for each in told()])
def test_every_option_of_a_command_exists(page: str, command: str) -> None:
    match = OWN.search(command)
    if match is None:
        assert not re.search(r"(data|distill|eval|scripts)[./]\w", command.split("pytest")[0]), f"{page}: {command}"
        return
    module, script, rest = match[1] or "", match[2] or "", match[3]
    words = shlex.split(rest.replace("[", " ").replace("]", " ").replace("|", " "))
    parts = script == "scripts/benchmark.py" or module == "eval.gan" or (words[:1] and words[0] in BENCHMARKS)
    named = words[0] if parts and words else ""
    known = options(module, script, named or ("flickr30k-cn" if module == "eval.retrieval" else ""))
    for word in words:
        if word.startswith("--"):
            name = word.split("=")[0]
            assert re.search(rf"{re.escape(name)}\b", known), f"{page}: {command}: no {name}"
        if word.startswith("configs/"):
            assert (ROOT / word).exists(), f"{page}: {command}: no {word}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_files_that_pages_name_exist() -> None:
    own = re.compile(r"`((?:data|distill|eval|scripts|tests|configs|docs)/[\w./-]+)`")
    named = [(page.name, path) for page in PAGES for path in own.findall(page.read_text(encoding="utf-8"))]
    assert [(page, path) for page, path in named if page != "CHANGELOG.md" and not (ROOT / path).exists()] == []


def test_the_steps_of_architecture_name_what_their_files_hold() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for step in re.findall(r"^\d\. (?:.*\n)(?:   .*\n)*", page, re.MULTILINE):
        files = [ROOT / path for path in re.findall(r"`((?:data|distill|eval)/[\w/]+\.py)`", step)]
        code = "".join(path.read_text(encoding="utf-8") for path in files)
        names = [name for name in re.findall(r"`([A-Za-z_]\w*)(?:\([^`]*)?`", step) if files]
        assert [name for name in names if not re.search(rf"\b{name}\b", code)] == [], step


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, a student for it and an index of features, under the names that the pages give them."""
    folder = tmp_path_factory.mktemp("docs")
    write_pipeline(folder).rename(folder / "PIPELINE")
    words = tiny_student_tokenizer()
    export(text_half(tiny_clip(words, seed=1)), words, folder / "STUDENT")
    faiss: Any = pytest.importorskip("faiss", reason="needs the extra `dev`: make install")
    index = faiss.IndexFlatIP(WIDTH)
    index.add(np.eye(WIDTH, dtype=np.float32))
    faiss.write_index(index, str(folder / "PICTURES.index"))
    shutil.copytree(write_xl(folder).rename(folder / "SDXL_PIPELINE"), folder / "SDXL_STUDENT")
    return folder


def python_blocks() -> list[Any]:
    pages = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    found = [(name, body) for name, text in pages.items() for kind, body in FENCED.findall(text) if kind == "python"]
    return [pytest.param(body, id=f"{name}-{number}") for number, (name, body) in enumerate(found)]


def test_the_examples_of_architecture_work(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    source, loss = (body for kind, body in FENCED.findall(page) if kind == "python")
    names: dict[str, Any] = {}
    exec(source + loss, names)
    (tmp_path / "pairs.txt").write_text("a cat -> 猫\nno arrow\n", encoding="utf-8")
    reader = names["Arrows"](name="toy", domain="caption", license="CC0", files=("pairs.txt",))
    rows = [(row["en"], row["zh"], row["line"], row["fault"]) for row in next(reader.read(str(tmp_path))).to_pylist()]
    assert rows == [("a cat", "猫", 1, ""), ("no arrow", "", 2, "columns")]
    text = torch.ones(1, 1, dtype=torch.bool)
    student, teacher = (EncoderOutput(torch.zeros(1, 1, 2), torch.tensor([[x, 0.0]]), text) for x in (1.0, 4.0))
    step = LossInput(student, teacher, student, teacher, padded_to_max=False)
    assert names["PooledL1"](weight=2.0).terms(step)["pooled_l1"].item() == 3.0  # 2 x mean of |1 - 4| and 0


@pytest.mark.parametrize("code", python_blocks())
def test_the_python_of_the_pages_runs(code: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    kind: Any
    for kind in (StableDiffusionPipeline, StableDiffusionXLPipeline):
        call = functools.partialmethod(kind.__call__, num_inference_steps=1)
        monkeypatch.setattr(kind, "__call__", call)
    exec(code, {})
