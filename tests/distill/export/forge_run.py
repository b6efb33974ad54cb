"""`python forge_run.py FORGE EXTENSION STUDENT`: the extension on the real text engine of a checkout of Forge.

Prints the largest difference of any state from golden/, the numbers of chunks, and commas. Only what needs a
checkpoint or the user interface is a stand-in: the settings, and the model around the engine. Needs the release of
transformers that Forge pins.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def main(forge: str, extension: str, student: str) -> None:
    sys.path.insert(0, forge)
    sys.argv = ["forge", "--always-cpu", "--clip-in-fp32"]
    shared: Any = ModuleType("modules.shared")
    # "Original" divides by the mean of the states, which is zero behind the norm of an untrained model.
    shared.opts = SimpleNamespace(emphasis="No norm", comma_padding_backtrack=20, CLIP_stop_at_last_layers=1)
    sys.modules["modules"], sys.modules["modules.shared"] = ModuleType("modules"), shared

    import torch
    from backend.args import dynamic_args
    from backend.nn.clip import IntegratedCLIP
    from backend.patcher.clip import CLIP
    from backend.text_processing.classic_engine import ClassicTextProcessingEngine
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    dynamic_args["embedding_dir"] = None
    config = json.loads((Path(student) / "text_encoder" / "config.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(Path(student) / "tokenizer"))
    teacher = IntegratedCLIP(CLIPTextModel, CLIPTextConfig(**config), True)  # the checkpoint's own, random
    clip = CLIP({"clip_l": teacher}, {"clip_l": tokenizer})
    model = SimpleNamespace(
        text_processing_engine=ClassicTextProcessingEngine(
            text_encoder=clip.cond_stage_model.clip_l,
            tokenizer=tokenizer,
            embedding_expected_shape=config["hidden_size"],
        ),
        **{f"forge_objects{end}": SimpleNamespace(clip=clip) for end in ("", "_original", "_after_applying_lora")},
    )
    spec = importlib.util.spec_from_file_location("yuqiao", extension)
    assert spec is not None
    assert spec.loader is not None
    yuqiao = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(yuqiao)
    yuqiao.plug_into_checkpoint(model, Path(student))

    engine = model.text_processing_engine
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
                "shared": model.forge_objects.clip is model.forge_objects_original.clip,
                "patched": model.forge_objects.clip.cond_stage_model.clip_l is engine.text_encoder,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
