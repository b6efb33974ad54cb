"""The folder for browsers: its tokenizer here; on request in npm, and the page in a real Chromium."""

import functools
import http.server
import json
import mimetypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.export.folder import export
from distill.export.formats import GOLDEN_PROMPTS, write_golden
from distill.export.search import javascript_rules, write_web
from distill.student.tokenizer import normalization_map

NODE_PACKAGES = os.environ.get("YUQIAO_NODE", "")
needs_npm = pytest.mark.skipif(
    not NODE_PACKAGES,
    reason="YUQIAO_NODE names a folder with node_modules of @huggingface/transformers and /tokenizers",
)
CDN = "https://cdn.jsdelivr.net/npm/"
MAPPED = ["水" + "水".join(map(chr, sorted(normalization_map()))), "ΑΣ ὈΔΥΣΣΕΎΣ"]
NODE = """
import fs from "node:fs";
import { createRequire } from "node:module";
const [packages, folder] = process.argv.slice(2);
const load = createRequire(packages + "/x");
const { Tokenizer } = load("@huggingface/tokenizers");
const { AutoTokenizer, env } = load("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = folder;
const read = (name) => JSON.parse(fs.readFileSync(`${folder}/${name}`));
const texts = read("texts.json");
const plain = new Tokenizer(read("web/tokenizer.json"), read("web/tokenizer_config.json"));
const auto = await AutoTokenizer.from_pretrained("web");
const start = process.cpuUsage();
for (let i = 0; i < 20; i++) texts.slice(0, 20).forEach((text) => plain.encode(text));
const { user, system } = process.cpuUsage(start);
console.log(JSON.stringify({
  tokenizers: texts.map((text) => plain.encode(text).ids),
  transformers: texts.map((text) => Array.from(auto(text).input_ids.data, Number)),
  milliseconds: (user + system) / 1000 / 400,
}));
"""


def test_the_tokenizer_of_the_folder_gives_the_same_ids(
    model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """With what stands for the model of `onnx/`, which is there already."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model_int8.onnx").write_bytes(b"int8")
    (tmp_path / "config.json").write_text("{}")
    write_web(tmp_path, model, tokenizer)
    files = {str(path.relative_to(tmp_path / "web")) for path in (tmp_path / "web").rglob("*") if path.is_file()}
    names = {"index.html", "config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_int8.onnx"}
    assert files == names
    rules = json.loads((tmp_path / "web" / "tokenizer.json").read_text(encoding="utf-8"))
    steps = rules["normalizer"]["normalizers"]
    assert {step["type"] for step in steps} == {"NFC", "Replace", "Lowercase"}
    table = {step["pattern"]["String"]: step["content"] for step in steps if "String" in step.get("pattern", {})}
    changed = {chr(old): chr(new) for old, new in normalization_map().items() if old != new}
    assert table == {"Σ": "σ", **changed}
    read = Tokenizer.from_str(json.dumps(rules))
    assert [read.encode(text).ids for text in GOLDEN_PROMPTS] == tokenizer(list(GOLDEN_PROMPTS)).input_ids


@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}])
def test_a_tokenizer_without_a_table(normalizer: dict[str, str] | None) -> None:
    steps = javascript_rules({"normalizer": normalizer})["normalizer"]["normalizers"]
    assert steps == ([] if normalizer is None else [normalizer])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with `web/` and a gallery of three pictures."""
    from tests.eval.tiny import text_half, tiny_clip, tiny_student_tokenizer

    folder, words = tmp_path_factory.mktemp("web") / "student", tiny_student_tokenizer()
    export(text_half(tiny_clip(words)), words, folder, [write_golden, write_web])
    return folder


@pytest.mark.slow
@needs_npm
def test_both_packages_of_npm(served: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*GOLDEN_PROMPTS, *MAPPED]
    (served / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        ["node", "--input-type=module", "-", NODE_PACKAGES, served], input=NODE,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['milliseconds']:.2f} ms of CPU a golden prompt")
    wanted = tokenizer(texts, verbose=False).input_ids
    assert found["tokenizers"] == wanted
    assert found["transformers"] == wanted
    assert found["milliseconds"] < 5


@pytest.fixture
def address(served: Path) -> Iterator[str]:
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=served / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def from_packages(route: Any) -> None:  # noqa: ANN401  playwright's
    """Answer what the page asks of the CDN from the folder of npm's packages."""
    name, _, rest = route.request.url.removeprefix(CDN).rpartition("@")
    path = Path(NODE_PACKAGES) / "node_modules" / name / rest.partition("/")[2]
    kind = {".mjs": "text/javascript"}.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    route.fulfill(path=path, content_type=kind, headers={"Access-Control-Allow-Origin": "*"})


@pytest.mark.slow
@needs_npm
def test_the_page_in_a_browser(served: Path, tokenizer: PreTrainedTokenizerFast, address: str) -> None:
    play: Any = pytest.importorskip("playwright.sync_api")
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    vectors = load_file(served / "golden" / "vectors.safetensors")
    session = onnxruntime.InferenceSession(str(served / "onnx" / "model_int8.onnx"))
    encoded = tokenizer(list(GOLDEN_PROMPTS), truncation=True, max_length=77).input_ids
    wanted = np.concatenate([session.run(["text_embeds"], {"input_ids": np.array([ids])})[0] for ids in encoded])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    (served / "web" / "pictures").mkdir()
    (served / "web" / "pictures" / "titles.json").write_text(json.dumps(["一.png", "two.png", "three.png"]))
    (served / "web" / "pictures" / "features.f32").write_bytes(wanted[[2, 9, 16]].tobytes())
    with play.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.route(CDN + "**", from_packages)
        tab.goto(address)
        tab.wait_for_selector("#query:enabled", timeout=200_000)
        features = np.array(
            [tab.evaluate("text => yuqiao.encode(text).then(Array.from)", text) for text in GOLDEN_PROMPTS]
        )
        tab.fill("#query", GOLDEN_PROMPTS[9])
        tab.press("#query", "Enter")
        tab.wait_for_selector("#found li", timeout=20_000)
        nearest = tab.get_attribute("#found li img", "alt")
        browser.close()
    assert not said, said
    assert nearest == "two.png"
    recorded = vectors["text_embeds"].numpy()
    cosines = (features * recorded).sum(1) / np.linalg.norm(recorded, axis=1)
    print(f"largest difference from onnxruntime {np.abs(features - wanted).max():.1e}; cosine >= {cosines.min():.4f}")
    assert np.abs(features - wanted).max() < 0.01
    assert cosines.min() > 0.99
