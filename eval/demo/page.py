"""`python scripts/demo.py`: type a prompt in Chinese, English or both, see what teacher and student draw and find.

The page is served on this machine to this machine: no analytics, no fonts from elsewhere, no public link.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from PIL import Image

from data.cli import REPOSITORY, UserError
from data.miniature import ASSETS
from distill.loading import resolve_device, torch_dtype
from eval.datasets.decoding import decode_image
from eval.demo.backend import (
    ImageGenerator,
    ImageSearch,
    SheetGenerator,
    cosine_summary,
    load_generator,
    load_image_search,
    load_sheet_generator,
)
from eval.generation.pipeline import SamplingConfig
from eval.generation.prompts import check_prompt
from eval.pictures import PictureFeatures
from eval.report.charts import line_chart
from eval.report.page import enlarged
from eval.retrieval.result import Precision

QUICKSTART = REPOSITORY / "runs" / "quickstart"
MIN_WIDTH = 256  # pixels; smaller pictures are enlarged
THUMBNAIL = 512  # pixels of the longer side of a picture that was found
EXAMPLES = [
    ["一只红色的猫在雪地里", "a red cat in the snow"],
    ["夜空下的绿色城堡，左边有一棵树", "a green castle under a starry night sky, a tree on its left"],
    ["two yellow 鱼 in the 大海", "two yellow fish in the sea"],
]
CHART_STYLE = """
.chart svg{width:100%;height:auto;max-width:44rem}.chart svg text{fill:currentColor;font:11px sans-serif}
.chart .grid{stroke:#8884}.chart .legend{list-style:none;padding:0}
.chart .legend span{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
"""


def main(arguments: list[str] | None = None) -> None:
    """Load the models and serve the page until Ctrl-C; see `--help`."""
    parser = ArgumentParser(prog="python scripts/demo.py", description=__doc__, exit_on_error=False)
    parser.add_argument("--pipeline", type=str, default=str(ASSETS / "pipeline"), help="SD 1.x or 2.x: folder, Hub id")
    parser.add_argument("--student", type=str, default=str(QUICKSTART / "student"), help="exported student")
    parser.add_argument("--clip", type=str, default=str(ASSETS / "clip"), help="the teacher's whole CLIP, for search")
    parser.add_argument("--pictures", type=Path, default=QUICKSTART / "world" / "test" / "images", help="to search in")
    parser.add_argument(
        "--gan", type=Path, default=ASSETS / "gan" / "conditional", help="conditional GAN; shown where the student fits"
    )
    parser.add_argument("--port", type=int, default=7860, help="of this machine; 0 takes a free one")
    parser.add_argument("--device", type=str | None, help="cpu, cuda ...; by default the accelerator if there is one")
    parser.add_argument("--precision", type=Precision, default="fp32", help="of the pipeline and its encoders")
    parser.add_class_arguments(SamplingConfig, "drawing")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs the package gradio; install the extra: pip install 'yuqiao[demo]'")
    if not Path(args.student).exists() and args.student == str(QUICKSTART / "student"):
        raise UserError(f"--student {args.student}: not there yet; run scripts/quickstart.py first, or name a student")
    device = resolve_device(args.device)
    generator = load_generator(args.pipeline, args.student, device, torch_dtype(args.precision))
    images = load_image_search(args.clip, args.student, device)
    gan = load_sheet_generator(args.gan, args.clip, images.student)
    serve(generator, images, images.read(args.pictures), gan, SamplingConfig(**vars(args.drawing)), args.port)


def serve(
    generator: ImageGenerator,
    images: ImageSearch,
    first: PictureFeatures,
    gan: SheetGenerator | None,
    sampling: SamplingConfig,
    port: int,
) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C; `first` is searched until another folder is named."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio: Any = importlib.import_module("gradio")
    with gradio.Blocks(title="Yuqiao 语桥", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Yuqiao 语桥\nOne UNet, two prompt encoders: the teacher reads English, the student Chinese too."
        )
        with gradio.Tab("Draw 画"):
            _draw_tab(gradio, generator, sampling)
        with gradio.Tab("Search 找"):
            _search_tab(gradio, images, first)
        if gan is not None:
            with gradio.Tab("GAN 对抗网络"):
                _gan_tab(gradio, gan)
    plain = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.queue(default_concurrency_limit=1).launch(
        server_name="127.0.0.1", server_port=port or None, share=False, ssr_mode=False, footer_links=[], theme=plain,
        css=CHART_STYLE,
    )  # fmt: skip


def _draw_tab(gradio: Any, generator: ImageGenerator, sampling: SamplingConfig) -> None:  # noqa: ANN401  an optional package
    boxes = _draw_boxes(gradio, "")
    note = gradio.Markdown(elem_id="note")
    cosines = gradio.HTML(elem_classes="chart", elem_id="cosines")

    def generate(text: str, english_text: str, seed_value: float) -> tuple[Image.Image, Image.Image, str, str]:
        pair = generator.generate(text, _checked_english(text, english_text), int(seed_value or 0), sampling)
        cut = f"; {pair.cut} tokens were too many and cut" if pair.cut else ""
        read = "" if pair.read is None else f"\n\nThe student understood: {pair.read}"
        series = {"cosine": list(enumerate(pair.cosine))}
        chart = line_chart("Cosine of teacher and student by position", "position", series)
        teacher, student = (enlarged(Image.fromarray(each), MIN_WIDTH) for each in (pair.teacher, pair.student))
        return teacher, student, cosine_summary(pair.cosine) + cut + read, str(chart)

    for trigger in boxes.triggers:
        trigger(_show_user_errors(gradio, generate), boxes.inputs, [*boxes.shown, note, cosines])


@dataclass(frozen=True)
class _DrawBoxes:
    """Prompt, its English and a seed; what starts drawing; the teacher's picture and the student's."""

    inputs: list[Any]
    triggers: list[Any]
    shown: list[Any]


def _draw_boxes(gradio: Any, prefix: str) -> _DrawBoxes:  # noqa: ANN401  an optional package
    prompt = gradio.Textbox(
        label="Prompt 提示词", placeholder="中文, English, or 两种 mixed", elem_id=f"{prefix}prompt"
    )
    english = gradio.Textbox(
        label="The same in English, for the teacher (empty: the prompt as it is)", elem_id=f"{prefix}english"
    )
    with gradio.Row():
        seed = gradio.Number(label="Seed", value=0, precision=0, minimum=0)
        button = gradio.Button("Draw", variant="primary", elem_id=f"{prefix}draw")
    with gradio.Row():
        shown = [
            gradio.Image(label=name, format="png", buttons=["download", "fullscreen"], elem_id=prefix + name.lower())
            for name in ("Teacher", "Student")
        ]
    gradio.Examples(EXAMPLES, [prompt, english])
    return _DrawBoxes([prompt, english, seed], [button.click, prompt.submit], shown)


def _checked_english(text: str, english: str) -> str:
    """The English for the teacher: by default the prompt; UserError for texts that are no prompts."""
    for each in (text, english) if english.strip() else (text,):
        check_prompt(each, "prompt")
    return english.strip() or text


def _gan_tab(gradio: Any, gan: SheetGenerator) -> None:  # noqa: ANN401  an optional package
    gradio.Markdown("A conditional GAN of the miniature's world: one thing, one picture for each of eight noises.")
    boxes = _draw_boxes(gradio, "gan-")

    def generate(text: str, english_text: str, seed_value: float) -> list[Image.Image]:
        return gan.generate(text, _checked_english(text, english_text), int(seed_value or 0))

    for trigger in boxes.triggers:
        trigger(_show_user_errors(gradio, generate), boxes.inputs, boxes.shown)


def _search_tab(gradio: Any, images: ImageSearch, first: PictureFeatures) -> None:  # noqa: ANN401  an optional package
    searched = gradio.State(first)
    with gradio.Row():
        folder = gradio.Textbox(label="Folder of your pictures, on this machine 图片文件夹", elem_id="folder", scale=4)
        read_button = gradio.Button("Read 读入", elem_id="read")
    note = gradio.Markdown(first.summary, elem_id="pictures")
    query = gradio.Textbox(label="Search 找图", elem_id="query")
    button = gradio.Button("Search", variant="primary", elem_id="search")
    gallery = gradio.Gallery(
        label="Nearest first", columns=4, object_fit="contain", buttons=["fullscreen"], elem_id="found"
    )

    def read(name: str, progress: Any = gradio.Progress()) -> tuple[PictureFeatures, str]:  # noqa: ANN401, B008
        found = images.read(Path(name.strip()).expanduser(), lambda done, total: progress((done, total)))
        return found, found.summary

    def search(text: str, pictures: PictureFeatures) -> list[tuple[Image.Image, str]]:
        check_prompt(text, "search")
        return [(_thumbnail(path), f"{path.name} {cosine:.3f}") for path, cosine in images.find(text, pictures)]

    for trigger in (read_button.click, folder.submit):
        trigger(_show_user_errors(gradio, read), folder, [searched, note])
    for trigger in (button.click, query.submit):
        trigger(_show_user_errors(gradio, search), [query, searched], gallery)


def _thumbnail(path: Path) -> Image.Image:
    image = decode_image(path.read_bytes(), str(path))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def _show_user_errors(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401  an optional package
    """`function` with UserError shown on the page."""

    @functools.wraps(function)  # by its signature the page finds a parameter for progress
    def checked(*values: Any) -> Any:  # noqa: ANN401  whatever the components hold
        try:
            return function(*values)
        except UserError as error:
            raise gradio.Error(str(error), duration=10, print_exception=False) from error

    return checked
