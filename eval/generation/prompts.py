"""The prompts to draw: one scene or idea a line, said in English, in Chinese, and maybe mixed."""

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data.cli import UserError, one_line
from data.miniature.scene import Scene, scene_from_json

MAX_CHARACTERS = 2000
"""Characters; many times what an encoder's slots hold."""


@dataclass(frozen=True)
class Prompt:
    """One idea; `scene` is its truth, known in the miniature only."""

    en: str
    zh: str
    mixed: str | None = None
    scene: Scene | None = None


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a JSON-lines file with the keys en, zh and, if known, mixed and scene."""
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
    """Raise UserError for a prompt that nobody can have meant: empty, endless, or with control characters."""
    if all(sign.isspace() or unicodedata.category(sign) == "Cf" for sign in text):  # Cf: signs of no width
        raise UserError(f"{place}: an empty prompt; write what is to be seen")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{place}: a prompt of {len(text)} characters; {MAX_CHARACTERS} are the most")
    control = next((sign for sign in text if _is_control(sign)), None)
    if control is not None:
        raise UserError(f"{place}: the control character U+{ord(control):04X} in a prompt; remove it")


def _is_control(sign: str) -> bool:
    """Whether nobody types it: a control, half a character, or one that turns what follows around (U+202E)."""
    turns = unicodedata.bidirectional(sign) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return turns or (unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\t\n\r")
