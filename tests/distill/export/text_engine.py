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


def print_comparison(engine: Any, tokenizer: Any, student: str, **found_in_model: bool) -> None:  # noqa: ANN401
    """Print the largest difference of any state from golden/, the numbers of chunks, and commas, as JSON."""
    import torch  # the program's own, behind its start-up
    from safetensors.torch import load_file

    prompts = json.loads((Path(student) / "golden" / "prompts.json").read_text(encoding="utf-8"))
    states = load_file(Path(student) / "golden" / "vectors.safetensors")["last_hidden_state"]
    plain = [row for row, text in enumerate(prompts) if engine.process_texts([text])[1] <= 75 and "(" not in text]
    with torch.inference_mode():
        found = torch.cat([engine([prompts[row]]).float().cpu() for row in plain])
    ends = [chunk.tokens for chunk in engine.process_texts(["一幅水墨，" * 20])[0][0]]
    first = ends[0][: ends[0].index(tokenizer.eos_token_id)]
    print(
        json.dumps(
            {
                "prompts": len(plain),
                "difference": float((found - states[plain]).abs().max()),
                "chunks": len(ends),
                "behind a comma": first[-1] == engine.comma_token,
                **found_in_model,
            }
        )
    )
