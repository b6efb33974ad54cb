"""Prompts for generation: JSON lines with the same prompt in English, in Chinese, and maybe mixed."""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data.cli import UserError, one_line
from data.miniature.scene import Scene, scene_from_json

MAX_CHARACTERS = 2000  # of a prompt; many times what fits into an encoder's sequence length


@dataclass(frozen=True)
class Prompt:
    """One prompt; `scene` is its true content, known in the miniature only."""

    en: str
    zh: str
    mixed: str | None = None
    scene: Scene | None = None


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """The first `limit` prompts of a JSON-lines file with the keys en, zh and, if known, mixed and scene."""
    if not path.is_file():
        raise UserError(f"--prompts {path}: no such file; give JSON lines with the keys en and zh")
    prompts = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            scene = scene_from_json(row["scene"]) if row.get("scene") else None
            prompt = Prompt(row["en"], row["zh"], row.get("mixed"), scene)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            problem = f"not a prompt ({one_line(error)}); needs the keys en and zh"
            raise UserError(f"{path}:{number}: {problem}") from error
        for text in (prompt.en, prompt.zh, *([] if prompt.mixed is None else [prompt.mixed])):
            if not isinstance(text, str):
                raise UserError(f"{path}:{number}: {text!r} is no prompt; en, zh and mixed are texts")
            check_prompt(text, f"{path}:{number}")
        prompts.append(prompt)
    if len(prompts) < 2:
        raise UserError(f"{path}: {len(prompts)} prompts; at least two, for each needs a wrong one to compare with")
    return prompts[:limit]


def check_prompt(text: str, place: str) -> None:
    """Raise UserError for a prompt that is empty, too long, or has control characters; `place` begins the error."""
    if all(character.isspace() or unicodedata.category(character) == "Cf" for character in text):  # Cf: of no width
        raise UserError(f"{place}: an empty prompt; write what is to be seen")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{place}: a prompt of {len(text)} characters; {MAX_CHARACTERS} are the most")
    control = next((character for character in text if _is_control(character)), None)
    if control is not None:
        raise UserError(f"{place}: the control character U+{ord(control):04X} in a prompt; remove it")


def _is_control(character: str) -> bool:
    """Whether it is a control character, a lone surrogate, or changes the direction of the text (U+202E)."""
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return unicodedata.bidirectional(character) in directions or (
        unicodedata.category(character) in {"Cc", "Cs"} and character not in "\t\n\r"
    )
