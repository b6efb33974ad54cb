"""The model card, read back by the Hub's own reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export.folder import export
from distill.export.formats import write_comfyui_node, write_golden
from distill.export.model_card import CardInfo, card_writer, read_card_info
from distill.export.results import METRICS, model_index, read_results, retrieval_lines, translation_lines
from distill.train.config import RunConfig


def result() -> dict[str, Any]:
    ci95: Any = {metric.key: [1.0, 2.0] for metric in METRICS}
    rows = [
        {
            "model": model,
            "language": language,
            **{metric.key: 10.0 + i for i, metric in enumerate(METRICS)},
            "ci95": ci95,
        }
        for model, language in (("student", "zh"), ("teacher", "en"))
    ]
    rows.append({**rows[0], "language": "en", **{metric.key: 20.0 + i for i, metric in enumerate(METRICS)}})
    settings = {"benchmark": "Flickr30K-CN", "protocol": "openai", "max_length": 77, "precision": "fp32"}
    settings |= {"student": "user/student", "sha256": {}, "images": 1000}
    ratios = {
        "student-zh/teacher-zh_en": {"percent": 92.15, "ci95": [86, 99.1]},
        "student-zh/teacher-en": {"percent": 96, "ci95": [90, 100]},
    }
    return {"rows": rows, "ratios": ratios, "settings": settings}


def card_info(name: str, license: str, run: RunConfig, results: list[Path]) -> CardInfo:
    return read_card_info(name, license, run, read_results(results))


def test_card(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, run: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result()))
    origin = card_info("me/student", "cc-by-sa-4.0", run, [tmp_path / "result.json"])
    export(model, tokenizer, tmp_path / "student", [write_golden, write_comfyui_node, card_writer(origin)])
    read = ModelCard.load(tmp_path / "student" / "README.md")
    assert read.data.language == ["zh", "en"]
    assert read.data.license == "cc-by-sa-4.0"
    assert read.data.base_model == "openai/clip-vit-large-patch14"
    for language, first in (("zh", 10.0), ("en", 20.0)):  # the student's alone
        own = [each for each in read.data.eval_results if each.task_name == f"Zero-shot retrieval ({language})"]
        assert {each.metric_type: each.metric_value for each in own} == {
            metric.key: first + i for i, metric in enumerate(METRICS)
        }
    assert read.data.eval_results[0].dataset_name == "Flickr30K-CN (zh)"
    for said in (
        "| Flickr30K-CN | teacher (reference) | en | 10.0 / 11.0 / 12.0 | 13.0 / 14.0 / 15.0 | 16.00 | 1.00 to 2.00 |",
        "student on Chinese, share of the teacher on translations of the Chinese: 92.15 % [86.00, 99.10]",
        "| tatoeba | general | 25,665 | CC BY 2.0 FR |",
        "chinese: 1.5",
        'CLIPTextModelWithProjection.from_pretrained("me/student")',
        "523 tokens",
        "- `golden`",
        "- `comfyui`",
    ):
        assert said in read.text
    assert read.text.index("translations of the Chinese:") < read.text.index("share of the teacher on English: 96.00 %")
    assert "- `onnx`" not in read.text
    assert str(tmp_path) not in read.text  # nothing of this machine goes out


def test_a_card_without_results_or_corpus(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, run: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "corpus" / "report.json").unlink()
    export(model, tokenizer, tmp_path / "student", [card_writer(card_info("student", "other", run, []))])
    read = ModelCard.load(tmp_path / "student" / "README.md")
    assert read.data.eval_results is None
    assert "## Results" not in read.text
    assert "## Data" not in read.text


def test_the_python_of_the_card_runs(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, run: RunConfig, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    export(model, tokenizer, out, [card_writer(card_info(str(out), "other", run, []))])
    code = (out / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["features"].shape == (1, 16)


def test_translations_on_the_card(run: RunConfig, tmp_path: Path) -> None:
    """Of two domains: rows of their own in table and index, and what the decoder said."""
    value = result()
    value["settings"]["benchmark"] = "translation"
    value["rows"] = [{"domain": domain, **row} for domain in ("poetry", "news") for row in value["rows"]]
    value["translations"] = [
        {"domain": "poetry", "model": "decoder", "direction": "zh_from_en", "bleu": 12.346, "bleu_ci95": [12, 13],
         "chrf": 3.25, "chrf_ci95": [3, 4], "bleu_signature": "", "sentences": 1, "samples": []}
    ]  # fmt: skip
    (tmp_path / "translation.json").write_text(json.dumps(value))
    found = read_results([tmp_path / "translation.json"])
    assert retrieval_lines(found)[0].startswith("| translation, poetry | student | zh | 10.0 / 11.0 / 12.0 |")
    assert translation_lines(found) == ["| poetry | decoder | zh_from_en | 12.35 | 3.25 |"]
    names = {(each.dataset_name, each.dataset_config) for each in model_index(found)}
    assert ("translation, news (zh)", "zh news") in names
    assert len(names) == 4


def test_results_that_are_none(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "cut.json").write_text('{"rows": [')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, said in (
        ("other", r"--results .*other\.json: no result of a benchmark: Input should be an object; write it again"),
        ("cut", "not JSON"),
        ("deep", "not JSON"),
        ("absent", "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            card_info("x", "other", run, [tmp_path / f"{name}.json"])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("settings.student", "settings.student: Field required"),
        ("settings.sha256", "settings.sha256: Field required"),
        ("settings.protocol", "settings.protocol: Field required"),
        ("rows.1.ci95", "rows.1.ci95: Field required"),
        ("rows.0.mr", "rows.0.mr: Input should be a valid number"),
        ("rows", "rows: Field required"),
    ],
)
def test_a_damaged_result_is_refused_by_its_key(place: str, said: str, run: RunConfig, tmp_path: Path) -> None:
    value = result()
    *outer, key = place.split(".")
    at: Any = value
    for name in outer:
        at = at[int(name) if isinstance(at, list) else name]
    at[key] = None
    if said.endswith("required"):
        del at[key]
    (tmp_path / "bad.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=rf"bad\.json: no result of a benchmark: {said}; write it again"):
        card_info("x", "other", run, [tmp_path / "bad.json"])


def test_a_damaged_report_of_the_corpus(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "report.json").write_text('{"train_rows": 1, "rows_rejected": 0, "sources": [{}]}')
    with pytest.raises(UserError, match=r"report\.json: sources\.0\.name: Field required; build the corpus again"):
        card_info("x", "other", run, [])
