"""`python scripts/demo.py`: type a prompt in Chinese, English or both, see what teacher and student draw and find.

A page of this machine for this machine: no analytics, no fonts from elsewhere, no public link.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from PIL import Image

from data.cli import UserError
from eval.demo.backend import ImageGenerator, ImageIndex, cosine_summary, load_generator, load_image_index
from eval.generation.pipeline import SamplingConfig
from eval.generation.prompts import check_prompt
from eval.report.charts import line_chart
from eval.retrieval.options import resolve_device

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "data" / "miniature" / "assets"
QUICKSTART = ROOT / "runs" / "quickstart"
SIDE = 256
"""Smaller pictures are enlarged to it, pixel by pixel."""
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
    """Load, and serve until the keyboard stops it; see `--help`."""
    parser = ArgumentParser(prog="python scripts/demo.py", description="A page to try a student.", exit_on_error=False)
    parser.add_argument("--pipeline", type=str, default=str(ASSETS / "pipeline"), help="SD 1.x or 2.x: folder, Hub id")
    parser.add_argument("--student", type=str, default=str(QUICKSTART / "student"), help="exported student")
    parser.add_argument("--clip", type=str, default=str(ASSETS / "clip"), help="the teacher's whole CLIP, for search")
    parser.add_argument("--pictures", type=Path, default=QUICKSTART / "world" / "test" / "images", help="to search in")
    parser.add_argument("--port", type=int, default=7860, help="of this machine; 0 takes a free one")
    parser.add_argument("--device", type=str | None, help="cpu, cuda ...; by default cuda where there is one")
    parser.add_class_arguments(SamplingConfig, "drawing")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs the package gradio; install the extra: pip install 'yuqiao[demo]'")
    if not Path(args.student).exists() and args.student == str(QUICKSTART / "student"):
        raise UserError(f"--student {args.student}: not there yet; run scripts/quickstart.py first, or name a student")
    device = resolve_device(args.device)
    generator = load_generator(args.pipeline, args.student, device)
    image_index = load_image_index(args.pictures, args.clip, args.student, device)
    serve(generator, image_index, SamplingConfig(**vars(args.drawing)), args.port)


def serve(generator: ImageGenerator, image_index: ImageIndex, sampling: SamplingConfig, port: int) -> None:
    """Show the page on 127.0.0.1 until the keyboard stops it."""
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
    slots = gradio.HTML(elem_classes="chart", elem_id="slots")
    gradio.Examples(EXAMPLES, [prompt, english])

    def drawn(text: str, said: str, number: float) -> tuple[Image.Image, Image.Image, str, str]:
        for each in (text, said) if said.strip() else (text,):
            check_prompt(each, "prompt")
        twins = generator.generate(text, said.strip() or text, int(number or 0), sampling)
        cut = f"; {twins.cut} tokens were too many and cut" if twins.cut else ""
        line = line_chart("Cosine of teacher and student by slot", "slot", {"cosine": list(enumerate(twins.cosine))})
        return upscaled(twins.teacher), upscaled(twins.student), cosine_summary(twins.cosine) + cut, line

    answer = _show_user_errors(gradio, drawn)
    for trigger in (button.click, prompt.submit):
        trigger(answer, [prompt, english, seed], [*shown, note, slots])


def _search_tab(gradio: Any, image_index: ImageIndex) -> None:  # noqa: ANN401  an optional package
    query = gradio.Textbox(label=f"Search {len(image_index.paths)} pictures 找图", elem_id="query")
    button = gradio.Button("Search", variant="primary", elem_id="search")
    found = gradio.Gallery(
        label="Nearest first", columns=4, object_fit="contain", buttons=["fullscreen"], elem_id="found"
    )

    def search(text: str) -> list[tuple[str, str]]:
        check_prompt(text, "search")
        return [(str(path), f"{cosine:.3f}") for path, cosine in image_index.search(text)]

    for trigger in (button.click, query.submit):
        trigger(_show_user_errors(gradio, search), query, found)


def _show_user_errors(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401  an optional package
    """`function`, whose UserError is shown on the page."""

    def told(*values: Any) -> Any:  # noqa: ANN401  whatever the components hold
        try:
            return function(*values)
        except UserError as error:
            raise gradio.Error(str(error), duration=10, print_exception=False) from error

    return told


def upscaled(picture: NDArray[np.uint8]) -> Image.Image:
    """The picture, at least SIDE wide."""
    image = Image.fromarray(picture)
    times = max(1, -(-SIDE // image.width))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
