"""The report card: complete, harmless whatever the files hold, and loading nothing in a real browser."""

import itertools
import json
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data.cli import UserError
from eval import translation
from eval.datasets.benchmark import BENCHMARKS
from eval.report.__main__ import find_image
from eval.report.__main__ import main as report
from eval.report.charts import line_chart
from eval.report.inputs import load_inputs
from eval.report.page import FLICKR30K_CN, TEACHER_ON_ENGLISH
from eval.retrieval.command import run_benchmark
from tests.distill.tiny_clip import write_shard
from tests.eval import files as small
from tests.eval.files import Files

COSINES = {"pairs": 3, "zh": 0.5, "en": 0.75}
PAIRS = {
    "kind": "pairs", "by_domain": {"<b>poetry": COSINES}, "by_length": {"1 to 8": COSINES},
    "by_slot": {"zh": [0.1, 0.2], "en": [0.9, 1.0]},
    "worst": [{"cosine": -0.25, "domain": "poetry", "zh": "<img src=x>", "en": "a & b"}],
}  # fmt: skip


class Outline(HTMLParser):
    """Tags with their attributes, and whether they were all closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write_drawn(folder: Path) -> Path:
    """What eval.generation writes, for two prompts and three conditionings."""
    (folder / "pictures").mkdir(parents=True)
    names = ("teacher-en", "student-zh", "student-mixed")
    for number, name in itertools.product(range(2), names):
        (folder / "pictures" / f"{number:03d}.{name}.png").write_bytes(small.picture(number))
    told = {"mean": 31.25, "ci95": [30.5, 32.0]}
    shown = [{"en": "a cat", "zh": f"猫{n}<b>", "mixed": "a 猫"} for n in range(2)]
    settings = {"prompts": 2, "seeds": 4, "sha256": {"unet": "abc"}}
    result = {"psnr": dict.fromkeys(names[1:], told), "shown": shown, "settings": settings}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def write_translation(path: Path, student: Path, clip: Path) -> Path:
    """The result of eval.translation on two domains, and in one of them what a decoder said."""
    pairs = [(f"the <i>{en}", zh) for en, zh in zip(small.ENGLISH, small.KINDS, strict=True)]
    write_shard(path.parent / "corpus" / "valid" / "0.parquet", pairs, ["poetry", "news"] * 3)
    arguments = ("--student", student, "--clip", clip, "--data", path.parent / "corpus", "--out", path)
    value = translation.run_translation([str(each) for each in arguments])
    value["translations"] = [
        {
            "domain": "news", "model": "decoder", "direction": "zh_from_en", "sentences": 3, "bleu": 12.345,
            "bleu_ci95": [10.0, 15.0], "bleu_signature": "tok:zh", "chrf": 23.456, "chrf_ci95": [20.0, 25.0],
            "chrf_signature": "nrefs:1", "samples": [{"en": "a", "zh": "一", "said": "<b>二"}],
        }
    ]  # fmt: skip
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(clip: Path, student: Path, files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a scored benchmark, a run and pairs, with hostile captions and names among them."""
    folder = tmp_path_factory.mktemp("report")
    hostile = folder / "captions.jsonl"
    lines = files.jsonl.read_text(encoding="utf-8").replace("机械狗", "机械狗<script>alert(1)</script>")
    hostile.write_text(lines, encoding="utf-8")
    images = files.jsonl.parent / "flickr30k-images"
    result = folder / "result.json"
    arguments = ("--student", student, "--clip", clip, "--data", hostile, "--images", images, "--out", result)
    run_benchmark(BENCHMARKS["flickr30k-cn"], [*(str(each) for each in arguments), "--title", "A few pictures"])
    value = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "other.json").write_text(json.dumps(value), encoding="utf-8")
    value["settings"]["benchmark"] = "Flickr30K-CN"  # as if it had the published size
    (folder / "result.json").write_text(json.dumps(value), encoding="utf-8")
    (folder / "run").mkdir()
    rows: list[dict[str, float]] = [{"step": n, "loss": 2 / n, "lr": 0.1, "valid/poetry/zh2en": n / 10} for n in (1, 2)]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 3, "loss": float("nan")}]) + '{"step": 4, "lo'
    (folder / "run" / "metrics.jsonl").write_text(lines)
    (folder / "run" / "pairs.json").write_text(json.dumps(PAIRS))
    sources = [
        str(folder / "result.json"),
        str(folder / "other.json"),
        str(folder / "run"),
        str(write_translation(folder / "translation.json", student, clip)),
        str(write_drawn(folder / "drawn")),
    ]
    report([*sources, "--images", str(images), "--out", str(folder / "report.html"), "--title", "<Card>"])
    return folder / "report.html"


def test_page_holds_everything_and_asks_for_nothing(made: Path) -> None:
    page = made.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    names = {tag for tag, _ in outline.tags}
    assert not names & {"script", "iframe", "object", "embed", "b", "i", "card"}
    links = [(tag, value) for tag, attrs in outline.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(value and value.startswith("data:") for _, value in links)
    assert sum(tag == "img" for tag, _ in links) == 2 * 12 * 5 + 2 * 3
    assert "url(" not in page
    for said in (
        "student zh", "teacher en (reference)", "teacher zh (floor)", "12 images", "squash",
        "student on Chinese, share of the teacher on English", "AltCLIP_T",
        escape("机械狗<script>alert(1)</script>"), "-0.250", "a &amp; b", "held out: zh2en", "losses", "learning rate",
        "SkyCLIP L/14", "84.0", "Settings and hashes", "猫1&lt;b&gt;", "31.250", "student-mixed",
        "PSNR to the teacher", "2 prompts, 4 noises each", "<h3>poetry</h3>", "to English R@1", "12.35",
        "10.00 to 15.00", "23.46", "&lt;b&gt;二", "decoder zh_from_en; tok:zh", "6 in all",
    ):  # fmt: skip
        assert said in page
    assert page.index("teacher-en, prompt 1") < page.index("student-mixed, prompt 1")
    assert page.count("What the peers published") == 1  # never beside another set


def test_json_beside_it(made: Path) -> None:
    value = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))
    assert set(value) == {"results", "translations", "drawings", "runs", "pairs", "prompts"}
    assert [row["domain"] for row in value["translations"]["translation"]["rows"]] == ["news"] * 4 + ["poetry"] * 4
    assert value["runs"]["run"]["valid/poetry/zh2en"] == 0.2
    result = value["results"]["result"]
    examples = [each for each in result["examples"] if (each["model"], each["language"]) == ("student", "zh")]
    assert len(examples) == 12
    for each in examples:
        assert len(each["found"]) == 5
        assert (each["place"] <= 5) == bool(set(each["right"]) & set(each["found"]))
        assert set(each["right"]) <= {small.name(n) for n in range(small.IMAGES)}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt-get install chromium fonts-noto-cjk")
def test_in_a_real_browser(made: Path, tmp_path: Path) -> None:
    """No console line, no request, and nothing wider than a phone: a frame of 390 pixels says so itself."""
    probe = tmp_path / "probe.html"
    content = json.dumps(made.read_text(encoding="utf-8")).replace("</", "<\\/")
    probe.write_text(
        '<meta charset="utf-8"><iframe id="f" width="390" height="800"></iframe><pre id="said"></pre><script>'
        "const f = document.getElementById('f'); f.onload = () => { const d = f.contentDocument.documentElement;"
        "const asked = f.contentWindow.performance.getEntriesByType('resource')"
        ".filter(e => !e.name.startsWith('data:'));"
        "document.getElementById('said').textContent = `over ${d.scrollWidth - d.clientWidth} asked ${asked.length} "
        "pictures ${[...d.querySelectorAll('img')].filter(i => i.naturalWidth).length}`; };"
        f"f.srcdoc = {content};</script>",
        encoding="utf-8",
    )
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
    ]  # fmt: skip
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "over 0 asked 0 pictures 126" in done.stdout.rsplit('<pre id="said">', 1)[1]
    assert "CONSOLE" not in done.stderr


def test_peers_are_consistent() -> None:
    """Mean recall is the mean of the six, as far as one decimal tells."""
    for peer in (*FLICKR30K_CN, TEACHER_ON_ENGLISH):
        assert sum((*peer.t2i, *peer.i2t)) / 6 == pytest.approx(peer.mr, abs=0.11)


def test_chart_of_nothing_and_of_one_point() -> None:
    assert line_chart("t", "x", {"a": [], "b": [(1, float("nan"))]}) == ""
    for value in (2, 1e20, -1e300):
        assert line_chart("t", "x", {"a": [(1, value)]}).count("<circle") == 1


def test_pictures_of_several_benchmarks_and_of_one_that_is_elsewhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(name.encode())
    picture = find_image([tmp_path / "a", tmp_path / "b"])
    assert [picture(image) for image in ("a.jpg", "b", "c.jpg")] == [b"a", b"b", None]
    assert find_image([])("a.jpg") is None
    with pytest.raises(UserError, match=r"--images .*absent: no such folder"):
        find_image([tmp_path / "absent"])


def test_results_of_one_name_in_two_folders_both_stand_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "metrics.jsonl").write_text('{"step": 1}')
        (tmp_path / name / "pairs.json").write_text(json.dumps(PAIRS))
    files = [tmp_path / name / "pairs.json" for name in ("a", "b")]
    found = load_inputs([*files, tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert list(found.pairs) == ["a/pairs", "b/pairs"]
    assert list(found.curves) == ["a/run", "b/run"]
    assert list(load_inputs([files[0], tmp_path / "a" / "run"]).pairs) == ["pairs"]


def test_what_cannot_be_reported(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "r.html")]
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "cut.json").write_text('{"rows": ')
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    for name, said in (
        ("other.json", "no result of a benchmark, no drawings, no pairs, no prompts and no metrics"),
        ("cut.json", "not JSON in UTF-8 .*cut short"),
        ("empty", "no result of a benchmark"),
        ("absent", "no such file or folder"),
        ("run", r"metrics\.jsonl:1: not JSON"),
    ):
        with pytest.raises(UserError, match=said):
            report([str(tmp_path / name), *out])
        assert not (tmp_path / "r.html").exists()
    with pytest.raises(UserError, match=r"name an \.html file"):
        report([str(tmp_path / "other.json"), "--out", str(tmp_path / "no" / "r.html")])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"5", ":1: Input should be an object"),
        (b'"x"', ":1: Input should be an object"),
        (b'{"loss": null}', ":1: loss: Input should be a valid number"),
        (b'{"l\\ud800": 1}', ":1: Invalid JSON"),
        (b'{"loss": "\xff"}', ":1: not valid UTF-8"),
        (b'{"step": 1}\n\xff\xfe', ":2: not valid UTF-8"),
        (b"[" * 100_000, ":1: not JSON"),
    ],
)
def test_metrics_that_are_none(line: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(line)
    refused([tmp_path], rf"metrics\.jsonl{said}", tmp_path / "r.html")


def refused(paths: list[Path], said: str, out: Path) -> None:
    with pytest.raises(UserError, match=said):
        report([*map(str, paths), "--out", str(out)])
    assert not out.exists()
    assert not out.with_suffix(".json").exists()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("rows.0.ci95", ..., "rows.0.ci95: Field required"),
        ("rows.0.ci95.mr", [1], "rows.0.ci95.mr.1: Field required"),
        ("rows.1.mr", None, "rows.1.mr: Input should be a valid number"),
        ("rows.0.model", 1, "rows.0.model: Input should be a valid string"),
        ("rows.0", 5, "rows.0: Input should be an object"),
        ("ratios", [], "ratios: Input should be an object"),
        ("examples", [1], "examples.0: Input should be an object"),
        ("settings.sha256", None, "settings.sha256: Input should be an object"),
        ("settings.benchmark", "\ud800", "Invalid JSON"),
        ("translations", [{"domain": "a"}], "translations.0.model: Field required"),
    ],
)
def test_a_damaged_result_is_refused_by_its_key(
    made: Path, tmp_path: Path, place: str, value: object, said: str
) -> None:
    """Given first, a sound result is not written either."""
    whole = json.loads((made.parent / "result.json").read_text(encoding="utf-8"))
    *outer, key = place.split(".")
    at = whole
    for name in outer:
        at = at[int(name) if isinstance(at, list) else name]
    if value is ...:
        del at[key]
    else:
        at[int(key) if isinstance(at, list) else key] = value
    (tmp_path / "bad.json").write_text(json.dumps(whole))
    refused(
        [made.parent / "result.json", tmp_path / "bad.json"], rf"bad\.json: {said}.*; write it", tmp_path / "r.html"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"kind": "pairs"}', r"by_domain: Field required; write it again with python -m eval\.pairs"),
        ('{"psnr": 1, "shown": 2, "settings": 3}', "psnr: Input should be an object; draw again with"),
        (json.dumps({"psnr": {}, "settings": {"prompts": 1, "seeds": 1, "sha256": {}}, "shown": [{"en": "a", "zh": "b",
         "mixed": 1}]}), "shown.0.mixed: Input should be a valid string"),
        ("[" * 100_000, "not JSON"),
        ('{"rows": ' + "[" * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_other_damaged_files(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    refused([tmp_path / "bad.json"], rf"bad\.json: {said}", tmp_path / "r.html")
