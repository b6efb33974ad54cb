"""`python -m data.translate LINES.txt --model MODEL --out FOLDER`: the other side of a one-sided corpus, by machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import atomic_file
from data.sources.io import read_lines

LINES_PER_PART = 16384  # lines an output file, the most that a killed run loses
Translate = Callable[[list[str]], list[str]]


def load_translator(model: str, device: str, max_tokens: int) -> Translate:
    """A function from texts to translations by a transformers sequence-to-sequence model (Marian, NLLB, M2M)."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForSeq2SeqLM.from_pretrained(model).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: not a translation model that transformers loads ({error})") from error

    def translate(texts: list[str]) -> list[str]:
        inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=max_tokens).to(device)
        generated = network.generate(**inputs, max_new_tokens=max_tokens, num_beams=1, do_sample=False)
        return [text.strip() for text in tokenizer.batch_decode(generated, skip_special_tokens=True)]

    return translate


def translate_lines(lines: list[str], translate: Translate, batch: int) -> list[str]:
    """Translations in the order of `lines`; batches hold lines of similar length, a blank line stays empty."""
    order = sorted((n for n, line in enumerate(lines) if line.strip()), key=lambda n: (len(lines[n]), n))
    translations = [""] * len(lines)
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        for index, text in zip(indices, translate([lines[n] for n in indices]), strict=True):
            translations[index] = text
    return translations


def write_parts(
    text: Path, out: Path, side: Literal["en", "zh"], translate: Translate, batch: int = 32, part: int = LINES_PER_PART
) -> int:
    """Translate the lines of `text`, whose language is `side`, into `out/part-NNNNN.parquet`; returns their number.

    Parts that exist are kept, so a killed run goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = [line for block in read_lines("", str(text)) for line in block.text.to_pylist()]
    other = "zh" if side == "en" else "en"
    for number, start in enumerate(tqdm(range(0, len(lines), part), desc="translate", unit=" parts")):
        path = out / f"part-{number:05d}.parquet"
        if path.exists():
            continue
        part_lines = lines[start : start + part]
        table = pa.table({side: part_lines, other: translate_lines(part_lines, translate, batch)}).select(["en", "zh"])
        with atomic_file(path) as partial:
            pq.write_table(table, partial, compression="zstd")
    return len(lines)


def main() -> None:
    """Read the command line, translate, and print the entry of a corpus config."""
    parser = ArgumentParser(prog="data.translate", description=__doc__, exit_on_error=False)
    parser.add_argument("text", type=Path, help="one text a line, compressed or not")
    parser.add_argument("--model", type=str, required=True, help="folder or Hub id, such as Helsinki-NLP/opus-mt-en-zh")
    parser.add_argument("--out", type=Path, required=True, help="folder of the Parquet files; finished ones are kept")
    parser.add_argument("--side", type=Literal["en", "zh"], default="en", help="language of the lines")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--longest", type=int, default=128, help="tokens of a text, on either side")
    args = parser.parse_args()
    translate = load_translator(args.model, args.device, args.longest)
    rows = write_parts(args.text, args.out, args.side, translate, args.batch)
    example = f"{{format: parquet, machine: {args.model}, files: [{args.out}/part-00000.parquet, ...]}}"
    print(f"{rows:,} rows in {args.out}; in a corpus config: {example}")


if __name__ == "__main__":
    run_cli(main)
