"""The card beside the models: what they are, how they were made, how well they do."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.provenance import commit

TEXT = """# The miniature's models

Made from nothing but drawn scenes and their English captions (`data/miniature`); no text or picture of anyone else's.
Licence: that of this repository.

{parts}

Command: `{command}`
Seed: {seed}. Code: {commit}. torch {torch}, diffusers {diffusers}, transformers {transformers}.
Trained on the CPU in bf16 autocast.
Scores are on unseen scenes: each holds a kind in a colour on a background that training never shows.

{tables}"""


PARTS = {
    "recogniser": "reads kinds, colours, sizes, counts, relations and background back from 64x64 pictures",
    "clip": "CLIPModel + CLIPTokenizer: 77 slots, 4 layers, width 256; pictures of 64x64 in 8x8 patches",
    "pipeline": "StableDiffusionPipeline: AutoencoderTiny 8x down to 16 channels, UNet2DConditionModel, v-prediction",
}
BARS = {
    "recogniser": {"all_but_size": 0.98},
    "clip": {"t2i_r1.train": 0.85},
    "autoencoder": {"exact": 0.98},
    "pipeline": {"things": 0.85},
}  # the least that the project asks


def write_card(folder: Path, scores: dict[str, Any], command: str, seed: int) -> None:
    """Write `folder`/CARD.md."""
    tables = []
    for name, found in scores.items():
        bars = BARS[name]
        rows = [f"| {key} | {value:.4g} | {bars.get(key, '')} |" for key, value in found.items()]
        tables.append("\n".join([f"## {name}", "", "| measure | value | at least |", "|---|---|---|", *rows]))
    parts = "\n".join(f"- `{name}/`: {what}" for name, what in PARTS.items() if name in scores)
    names = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    text = TEXT.format(command=command, seed=seed, commit=commit(), parts=parts, tables="\n\n".join(tables), **names)
    partial = folder / ".CARD.md.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / "CARD.md")
