"""The commands of evaluation on the pages, typed as they stand there, in a folder that holds what they name."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.export import export
from distill.export_golden import write_golden
from distill.export_pipeline import write_pipeline as put_student_into
from tests.eval.files import ENGLISH, IMAGES, KINDS, name, write_files
from tests.eval.tiny import save_clip, text_half, tiny_clip, tiny_tokenizer
from tests.miniature.random_pipeline import write_pipeline
from tests.test_docs import OWN, told

ORDER = ("eval.flickr30k_cn", "eval.pairs", "eval.generation", "eval.report", "eval.golden")
"""Of what a command reads that another one wrote."""
PAGES = ("README.md", "evaluation.md", "recipe.md", "use.md")
PAIRS = [{"en": f"the {en}", "zh": f"一只{zh}", "domain": "caption"} for en, zh in zip(ENGLISH, KINDS, strict=True)]


def typed() -> list[tuple[str, str]]:
    """(module, rest of the command line), what is optional left out."""
    found = []
    for page, command in told():
        match = OWN.search(re.sub(r"\[[^\]]*\]", "", command))
        if page in PAGES and match and match[1] in ORDER and match[3].strip() and "onnx" not in command:
            found.append((match[1], match[3]))
    return sorted(dict.fromkeys(found), key=lambda each: ORDER.index(each[0]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file that the pages name, as small as it can be."""
    monkeypatch.chdir(tmp_path)
    files = write_files(tmp_path)
    for captions in ("CAPTIONS", "PATH"):
        shutil.copytree(files.chinese_clip, tmp_path / captions)
    for source in (files.csv, files.csv.parent / "flickr30k-images"):
        source.rename(tmp_path / source.name)
    shutil.copytree("flickr30k-images", "PICTURES")
    english = [{"id": name(n)[:-4], "img_path": name(n), "sentences": [ENGLISH[n % 6]]} for n in range(IMAGES)]
    for path, rows in (("flickr30k.test.en.jsonl", english), ("prompts.jsonl", PAIRS[:2])):
        Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    save_clip(tmp_path / "TEACHER")
    shutil.copytree("TEACHER", "openai/clip-vit-large-patch14")
    write_pipeline(tmp_path).rename("PIPELINE")
    words = tiny_tokenizer(chinese=True)
    export(text_half(tiny_clip(words, seed=1)), words, tmp_path / "STUDENT", [write_golden])
    put_student_into(tmp_path / "STUDENT", "PIPELINE", tmp_path / "COPY")
    shutil.copytree("STUDENT", "runs/student")
    for corpus, run in (("CORPUS", "RUN"), ("runs/corpus", "runs/sd15")):
        Path(corpus, "valid").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(PAIRS), Path(corpus, "valid", "0.parquet"))
        Path(run).mkdir()
        Path(run, "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    return tmp_path


def test_every_command_of_evaluation_does_what_it_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = typed()
    assert {module for module, _ in commands} == set(ORDER)
    for module, rest in commands:
        if module == "eval.report" and not Path("DRAWN").exists():
            shutil.copytree("runs/drawn", "DRAWN")  # evaluation.md does not say which pipeline drew them
        words = shlex.split(rest)
        monkeypatch.setattr(sys, "argv", [module, *words])
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        if "--out" in words:
            out = Path(words[words.index("--out") + 1])
            assert out.exists(), rest
    for page in ("report.html", "runs/report.html"):
        text = Path(page).read_text(encoding="utf-8")
        assert "student" in text
        assert text.count("<img") > IMAGES
        assert "<svg" in text
