import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.cli import UserError
from data.files import hashes
from distill.api import load_student
from eval.pairs import concat_pairs, cosine_by_position, load_held_out, main


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [("the cat", "猫", "caption"), ("the dog", "狗", "caption"), ("moon " * 40, "月" * 9, "poetry")]
    columns = {"en": [r[0] for r in rows], "zh": [r[1] for r in rows], "domain": [r[2] for r in rows]}
    (tmp_path / "corpus" / "valid").mkdir(parents=True)
    pq.write_table(pa.table(columns), tmp_path / "corpus" / "valid" / "0.parquet")
    return tmp_path / "corpus"


def test_cosines_by_domain_length_and_slot(corpus: Path, student: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.json"
    main(["--student", str(student), "--clip", str(teacher), "--corpus", str(corpus), "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    settings = found["settings"]
    assert {"command", "commit", "versions"} <= settings.keys()
    hashed = [corpus / "valid" / "0.parquet", student / "model.safetensors", teacher / "model.safetensors"]
    assert hashes(hashed).items() <= settings["sha256"].items()
    own, target = load_student(student), load_student(teacher)
    cosines = (own.encode(["猫", "狗", "月" * 9]) * target.encode(["the cat", "the dog", "moon " * 40])).sum(axis=1)
    assert found["by_domain"]["caption"]["zh"] == pytest.approx(cosines[:2].mean(), abs=1e-4)
    assert found["by_domain"]["poetry"]["pairs"] == 1
    assert found["by_length"] == {
        "1 to 8": {**found["by_domain"]["caption"]}, "65 to 77": {**found["by_domain"]["poetry"]},
    }  # fmt: skip
    assert [row["cosine"] for row in found["worst"]] == pytest.approx(sorted(np.round(cosines, 4)), abs=1e-4)
    assert {name: len(values) for name, values in found["by_slot"].items()} == {"zh": 77, "en": 77, "empty prompt": 77}


def test_precision_and_device(corpus: Path, student: Path, teacher: Path, tmp_path: Path) -> None:
    words = ["--student", str(student), "--clip", str(teacher), "--corpus", str(corpus)]
    results = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.json"
        main([*words, "--out", str(out), "--precision", precision, "--device", "cpu"])
        results.append(json.loads(out.read_text(encoding="utf-8")))
    assert [result["settings"]["precision"] for result in results] == ["fp32", "bf16"]
    exact, rounded = (result["by_domain"]["caption"]["zh"] for result in results)
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.02)
    with pytest.raises(UserError, match="--device nothing: "):
        main([*words, "--out", str(tmp_path / "x.json"), "--device", "nothing"])


def test_the_teacher_is_itself_at_every_slot(corpus: Path, teacher: Path) -> None:
    encoder = load_student(teacher)
    slots = cosine_by_position(encoder, encoder, concat_pairs(load_held_out(corpus, 10)))
    assert min(slots["en"]) == max(slots["en"]) == min(slots["empty prompt"]) == 1.0
    assert min(slots["zh"]) < 1.0
    assert slots["zh"][0] == 1.0  # the start of text sees nothing else


def test_a_folder_that_is_no_corpus(student: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no valid/\*\.parquet there"):
        main(["--student", str(student), "--clip", str(teacher), "--corpus", str(tmp_path), "--out", "x.json"])


def test_what_is_refused_before_anything_is_compared(
    corpus: Path, student: Path, teacher: Path, tmp_path: Path
) -> None:
    words = ["--corpus", str(corpus), "--out", str(tmp_path / "x.json")]
    with pytest.raises(UserError, match=f"--student: '{tmp_path}' holds no tokenizer"):
        main(["--student", str(tmp_path), "--clip", str(teacher), *words])
    with pytest.raises(UserError, match="--clip: no folder"):
        main(["--student", str(student), "--clip", str(tmp_path / "absent"), *words])
    with pytest.raises(UserError, match="--per-domain must be at least 1"):
        main(["--student", str(student), "--clip", str(teacher), *words, "--per-domain", "0"])
    with pytest.raises(UserError, match="a folder; name a file"):
        main(["--student", str(student), "--clip", str(teacher), *words[:3], str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_only_so_many_pairs_of_a_domain(corpus: Path) -> None:
    assert concat_pairs(load_held_out(corpus, 1)).zh == ["猫", "月" * 9]
