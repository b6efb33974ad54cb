"""What the runs of the extension on real text engines share; beside them, so that another interpreter finds it."""

import importlib.util
import json
from pathlib import Path
from typing import Any


def plug_into_checkpoint(extension: str, model: Any, student: str) -> None:  # noqa: ANN401
    """Put the student into a program's `model` by the extension's file."""
    spec = importlib.util.spec_from_file_location("yuqiao", extension)
    assert spec is not None
    assert spec.loader is not None
    yuqiao = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(yuqiao)
    yuqiao.plug_into_checkpoint(model, Path(student))


def parts(student: str) -> tuple[list[str], list[str]]:
    """The programs' names of the encoders that a student has, and its folders of them."""
    folders = [name for name in ("text_encoder", "text_encoder_2") if (Path(student) / name).is_dir()]
    return ["clip_l", "clip_g"][: len(folders)], folders


def print_comparison(engines: list[Any], student: str, **found_in_model: bool) -> None:
    """Print the largest difference of any state from golden/, the numbers of chunks, and commas, as JSON."""
    import torch  # the program's own, behind its start-up
    from safetensors.torch import load_file

    prompts = json.loads((Path(student) / "golden" / "prompts.json").read_text(encoding="utf-8"))
    golden = load_file(Path(student) / "golden" / "vectors.safetensors")
    engine = engines[0]
    plain = [row for row, text in enumerate(prompts) if engine.process_texts([text])[1] <= 75 and "(" not in text]
    states, pooled = [], []
    with torch.inference_mode():
        for row in plain:
            found = [each([prompts[row]]) for each in engines]
            pooled += [value[1] for value in found if isinstance(value, tuple)]
            states.append(torch.cat([value[0] if isinstance(value, tuple) else value for value in found], dim=2))
    wanted = golden["prompt_embeds" if len(engines) == 2 else "last_hidden_state"]
    difference = float((torch.cat(states).float().cpu() - wanted[plain]).abs().max())
    if pooled:
        off = torch.cat(pooled).float().cpu() - golden["pooled_prompt_embeds"][plain]
        difference = max(difference, float(off.abs().max()))
    ends = [chunk.tokens for chunk in engine.process_texts(["一幅水墨，" * 20])[0][0]]
    first = ends[0][: ends[0].index(engine.id_end)]
    print(
        json.dumps(
            {
                "prompts": len(plain),
                "difference": difference,
                "pooled": len(pooled),
                "chunks": len(ends),
                "behind a comma": first[-1] == engine.comma_token,
                **found_in_model,
            }
        )
    )
