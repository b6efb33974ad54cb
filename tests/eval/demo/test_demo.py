"""The demo as a person uses it: a real browser types and clicks, and nothing leaves the machine."""

import json
import multiprocessing
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.cli import UserError
from distill.api import load_student
from distill.export.folder import export
from eval.demo import page
from eval.demo.backend import load_generator, load_image_search, load_sheet_generator
from eval.gan.networks import GanConfig, Generator, Kind, TrainedGenerator, save_generator
from eval.generation.pipeline import SamplingConfig
from tests.distill.forked import run_script
from tests.eval.files import picture
from tests.eval.random_pipeline import write_pipeline
from tests.eval.tiny import WIDTH, save_clip, text_half, tiny_clip, tiny_student_tokenizer

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pipeline, student, CLIP and pictures, all random and small."""
    folder = tmp_path_factory.mktemp("demo")
    write_pipeline(folder)
    words = tiny_student_tokenizer()
    export(text_half(tiny_clip(words, seed=1)), words, folder / "student")
    save_clip(folder / "clip")
    config = GanConfig("conditional", width=4, text_dim=WIDTH)
    save_generator(TrainedGenerator(Generator(config).eval(), config), folder / "gan")
    (folder / "pictures").mkdir()
    for number in range(15):
        (folder / "pictures" / f"{number:02d}.png").write_bytes(picture(number))
    return folder


def options(folder: Path) -> list[str]:
    names = ("pipeline", "student", "clip", "pictures", "gan")
    return [*(part for name in names for part in (f"--{name}", str(folder / name))), "--drawing.steps", "2"]


def test_twins_share_their_noise_and_differ_by_their_states(made: Path) -> None:
    generator = load_generator(str(made / "pipeline"), str(made / "student"), CPU)
    how = SamplingConfig(steps=2)
    one, same = (generator.generate("猫", "the cat", 3, how) for _ in range(2))
    assert one.teacher.shape == one.student.shape == (64, 64, 3)
    assert np.array_equal(one.student, same.student)
    assert not np.array_equal(one.teacher, one.student)
    assert not np.array_equal(one.teacher, generator.generate("猫", "the cat", 4, how).teacher)
    assert len(one.cosine) == 77
    assert (one.cut, generator.generate("the cat " * 60, "the cat", 3, how).cut) == (0, 2 + 120 - 77)
    itself = load_generator(str(made / "pipeline"), str(made), CPU).generate("the cat", "the cat", 3, how)
    assert np.array_equal(itself.teacher, itself.student)
    assert itself.cosine == pytest.approx([1] * 77, abs=1e-5)


def test_sheets_share_their_noises_and_the_gan_needs_a_student_that_fits(made: Path, tmp_path: Path) -> None:
    student = load_student(made / "student")
    gan = load_sheet_generator(made / "gan", str(made / "clip"), student)
    assert gan is not None
    for weight in gan.trained.generator.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    sheets = [gan.generate("猫", "the cat", seed) for seed in (3, 3, 4)]
    one, same, other = (np.stack([np.asarray(sheet) for sheet in pair]) for pair in sheets)
    assert one.shape == (2, 64, 512, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])
    kinds: list[tuple[Kind, int]] = [("conditional", 2 * WIDTH), ("dcgan", WIDTH)]
    for kind, width in kinds:
        config = GanConfig(kind, width=4, text_dim=width)
        save_generator(TrainedGenerator(Generator(config).eval(), config), tmp_path / kind)
        assert load_sheet_generator(tmp_path / kind, str(made / "clip"), student) is None


def test_search_is_the_order_of_the_cosines(made: Path) -> None:
    images = load_image_search(str(made / "clip"), str(made / "student"), CPU)
    pictures = images.read(made / "pictures")
    found = images.find("机械狗", pictures, count=15)
    cosines = [cosine for _, cosine in found]
    assert cosines == sorted(cosines, reverse=True)
    assert {path for path, _ in found} == set(pictures.paths)
    place = pictures.paths.index(found[0][0])
    assert cosines[0] == pytest.approx(float(pictures.features[place] @ images.student.encode(["机械狗"])[0]), abs=1e-6)


def test_mistakes_are_one_line(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run scripts/quickstart.py first|no Stable Diffusion"):
        page.main(["--pipeline", str(tmp_path)])
    with pytest.raises(UserError, match=r"--pictures .*: no such folder"):
        page.main([*options(made), "--pictures", str(tmp_path / "absent")])
    with pytest.raises(UserError, match="no pictures in it"):
        page.main([*options(made), "--pictures", str(tmp_path)])


@pytest.fixture(scope="module")
def address(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running demo, in a fork, which need not import torch and gradio again."""
    pytest.importorskip("gradio", reason="needs the extra `demo`: make install")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "log"
    context = multiprocessing.get_context("fork")
    words = [*options(made), "--port", str(port)]
    server = context.Process(target=run_script, args=(ROOT / "scripts" / "demo.py", words, log))
    server.start()
    try:
        for _ in range(900):
            assert server.is_alive(), log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.join(20)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: apt-get install chromium fonts-noto-cjk")
def test_typing_and_clicking(address: str, tmp_path: Path) -> None:
    play: Any = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`: make install")
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.png").write_bytes(picture(30))
    (own / "cut.png").write_bytes(picture(31)[:100])
    with play.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        asked: list[str] = []
        said: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.goto(address)
        tab.fill("#prompt textarea", "戴帽子拿剑的猫 and the dog，8k")
        tab.fill("#english textarea", "the cat and the dog")
        tab.click("#draw")
        tab.wait_for_selector("#cosines svg polyline", timeout=60_000)
        for name in ("teacher", "student"):
            tab.wait_for_selector(f"#{name} img", timeout=20_000)
        sources = [tab.get_attribute(f"#{name} img", "src") for name in ("teacher", "student")]
        assert sources[0] != sources[1]
        assert "cosine of the states: mean" in tab.inner_text("#note")
        over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0
        tab.fill("#prompt textarea", "")
        tab.click("#draw")
        tab.wait_for_selector("text=an empty prompt; write what is to be seen", timeout=20_000)
        tab.get_by_role("tab", name="Search 找").click()
        tab.fill("#query textarea", "机械狗")
        tab.press("#query textarea", "Enter")
        tab.wait_for_selector("#found img", timeout=20_000)
        tab.wait_for_function("document.querySelectorAll('#found img').length >= 12")
        tab.fill("#folder textarea", str(own))
        tab.click("#read")
        tab.wait_for_selector("#pictures:has-text('1 pictures; 1 could not be read')", timeout=20_000)
        tab.press("#query textarea", "Enter")
        tab.wait_for_selector("#found :text('mine.png')", timeout=20_000)
        tab.fill("#folder textarea", str(own / "absent"))
        tab.click("#read")
        tab.wait_for_selector("text=no such folder; give one of pictures", timeout=20_000)
        tab.get_by_role("tab", name="GAN").click()
        tab.fill("#gan-prompt textarea", "猫")
        tab.click("#gan-draw")
        for name in ("teacher", "student"):
            tab.wait_for_selector(f"#gan-{name} img", timeout=20_000)
        browser.close()
    away = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not away, json.dumps(away)
    assert not said, said
