"""The student for a browser: a folder of static files that @huggingface/transformers of npm loads, with a search page.

The page runs the int8 ONNX model and compares its features with those of pictures, which `eval.pictures` adds.
"""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import normalizers
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.files import read_json
from distill.export.folder import write_tokenizer
from distill.export.onnx import write_onnx

PAGE = Path(__file__).with_name("web") / "index.html"
MODEL = Path("onnx") / "model_int8.onnx"


def write_web(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `web/` into `folder`: page, int8 model, config, and the tokenizer as JavaScript reads it; and `onnx/`."""
    if not (folder / MODEL).is_file():
        write_onnx(folder, model, tokenizer)
    web = folder / "web"
    (web / MODEL).parent.mkdir(parents=True)
    shutil.copyfile(folder / MODEL, web / MODEL)
    shutil.copyfile(PAGE, web / "index.html")
    shutil.copyfile(folder / "config.json", web / "config.json")
    write_tokenizer(tokenizer, web, model.config.max_position_embeddings)
    for name in ("vocab.json", "merges.txt"):  # read by no JavaScript
        (web / name).unlink(missing_ok=True)
    rules = javascript_rules(read_json(web / "tokenizer.json"))
    (web / "tokenizer.json").write_text(json.dumps(rules, ensure_ascii=False), encoding="utf-8")


def javascript_rules(rules: dict[str, Any]) -> dict[str, Any]:
    """`rules`, a tokenizer.json, so that the JavaScript libraries give the same ids; theirs is the normalizer alone.

    They read every compiled table as NFKC, so the characters of a table are replaced one by one: 0.5 ms a prompt. And
    their lower case of a capital sigma depends on its place in the word.
    """
    steps: list[dict[str, Any]] = []
    for step in _steps(rules["normalizer"]):
        if step["type"] == "Precompiled":
            steps += [_replace(old, new) for old, new in _table(step).items()]
        else:
            steps += [_replace("Σ", "σ")] if step["type"] == "Lowercase" else []
            steps.append(step)
    return {**rules, "normalizer": {"type": "Sequence", "normalizers": steps}}


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None or normalizer["type"] != "Sequence":
        return [normalizer] if normalizer else []
    return [step for part in normalizer["normalizers"] for step in _steps(part)]


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _table(precompiled: dict[str, Any]) -> dict[str, str]:
    """What the compiled table makes of each character that it changes."""
    step = normalizers.Precompiled(base64.b64decode(precompiled["precompiled_charsmap"]))
    characters = [chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    # Line ends between them, so that none is read together with the next.
    read = step.normalize_str("\n".join(characters)).split("\n")
    return {old: new for old, new in zip(characters, read, strict=True) if old != new}
