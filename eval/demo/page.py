"""`python scripts/demo.py`: type a prompt in Chinese, English or both, see what teacher and student draw and find.

The page is served on this machine to this machine: no analytics, no fonts from elsewhere, no public link.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from PIL import Image

from data.cli import REPOSITORY, UserError
from data.miniature import ASSETS
from eval.demo.backend import ImageGenerator, ImageIndex, cosine_summary, load_generator, load_image_index
from eval.generation.pipeline import SamplingConfig
from eval.generation.prompts import check_prompt
from eval.report.charts import line_chart
from eval.report.page import enlarged
from eval.retrieval.options import Precision, resolve_device, torch_dtype

QUICKSTART = REPOSITORY / "runs" / "quickstart"
MIN_WIDTH = 256  # pixels; smaller pictures are enlarged
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
    image_index = load_image_index(args.pictures, args.clip, args.student, device)
    serve(generator, image_index, SamplingConfig(**vars(args.drawing)), args.port)


def serve(generator: ImageGenerator, image_index: ImageIndex, sampling: SamplingConfig, port: int) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    gradio: Any = importlib.import_module("gradio")
    with gradio.Blocks(title="Yuqiao 语桥", analytics_enabled=False) as page:
        gradio.Markdown(
            "# Yuqiao 语桥\nOne UNet, two prompt encoders: the teacher reads English, the student Chinese too."
        )
        with gradio.Tab("Draw 画"):
            _draw_tab(gradio, generator, sampling)
        with gradio.Tab("Search 找"):
            _search_tab(gradio, image_index)
    plain = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.queue(default_concurrency_limit=1).launch(
        server_name="127.0.0.1", server_port=port or None, share=False, ssr_mode=False, footer_links=[], theme=plain,
        css=CHART_STYLE, allowed_paths=sorted({str(path.parent) for path in image_index.paths}),
    )  # fmt: skip


def _draw_tab(gradio: Any, generator: ImageGenerator, sampling: SamplingConfig) -> None:  # noqa: ANN401  an optional package
    prompt = gradio.Textbox(label="Prompt 提示词", placeholder="中文, English, or 两种 mixed", elem_id="prompt")
    english = gradio.Textbox(
        label="The same in English, for the teacher (empty: the prompt as it is)", elem_id="english"
    )
    with gradio.Row():
        seed = gradio.Number(label="Seed", value=0, precision=0, minimum=0)
        button = gradio.Button("Draw", variant="primary", elem_id="draw")
    with gradio.Row():
        shown = [
            gradio.Image(label=name, format="png", buttons=["download", "fullscreen"], elem_id=name.lower())
            for name in ("Teacher", "Student")
        ]
    note = gradio.Markdown(elem_id="note")
    cosines = gradio.HTML(elem_classes="chart", elem_id="cosines")
    gradio.Examples(EXAMPLES, [prompt, english])

    def generate(text: str, english_text: str, seed_value: float) -> tuple[Image.Image, Image.Image, str, str]:
        for each in (text, english_text) if english_text.strip() else (text,):
            check_prompt(each, "prompt")
        pair = generator.generate(text, english_text.strip() or text, int(seed_value or 0), sampling)
        cut = f"; {pair.cut} tokens were too many and cut" if pair.cut else ""
        series = {"cosine": list(enumerate(pair.cosine))}
        chart = line_chart("Cosine of teacher and student by position", "position", series)
        teacher, student = (enlarged(Image.fromarray(each), MIN_WIDTH) for each in (pair.teacher, pair.student))
        return teacher, student, cosine_summary(pair.cosine) + cut, str(chart)

    for trigger in (button.click, prompt.submit):
        trigger(_show_user_errors(gradio, generate), [prompt, english, seed], [*shown, note, cosines])


def _search_tab(gradio: Any, image_index: ImageIndex) -> None:  # noqa: ANN401  an optional package
    query = gradio.Textbox(label=f"Search {len(image_index.paths)} pictures 找图", elem_id="query")
    button = gradio.Button("Search", variant="primary", elem_id="search")
    gallery = gradio.Gallery(
        label="Nearest first", columns=4, object_fit="contain", buttons=["fullscreen"], elem_id="found"
    )

    def search(text: str) -> list[tuple[str, str]]:
        check_prompt(text, "search")
        return [(str(path), f"{cosine:.3f}") for path, cosine in image_index.search(text)]

    for trigger in (button.click, query.submit):
        trigger(_show_user_errors(gradio, search), query, gallery)


def _show_user_errors(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401  an optional package
    """`function` with UserError shown on the page."""

    def checked(*values: Any) -> Any:  # noqa: ANN401  whatever the components hold
        try:
            return function(*values)
        except UserError as error:
            raise gradio.Error(str(error), duration=10, print_exception=False) from error

    return checked
