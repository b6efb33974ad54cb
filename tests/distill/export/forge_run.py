"""`python forge_run.py FORGE EXTENSION STUDENT`: the extension on the real text engine of a checkout of Forge.

Prints the largest difference of any state from golden/, the numbers of chunks, and commas. Only what needs a
checkpoint or the user interface is a stand-in: the settings, and the model around the engine. Needs the release of
transformers that Forge pins.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def main(forge: str, extension: str, student: str) -> None:
    sys.path[:0] = [forge, f"{forge}/packages_3rdparty"]
    sys.argv = ["forge", "--always-cpu", "--clip-in-fp32"]
    shared: Any = ModuleType("modules.shared")
    # "Original" divides by the mean of the states, which is zero behind the norm of an untrained model.
    shared.opts = SimpleNamespace(emphasis="No norm", comma_padding_backtrack=20, CLIP_stop_at_last_layers=1)
    sys.modules["modules"], sys.modules["modules.shared"] = ModuleType("modules"), shared

    from backend.args import dynamic_args
    from backend.nn.clip import IntegratedCLIP
    from backend.patcher.clip import CLIP
    from backend.text_processing.classic_engine import ClassicTextProcessingEngine
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    dynamic_args["embedding_dir"] = None
    text_engine: Any = importlib.import_module("text_engine")  # the file beside this one
    keys, parts = text_engine.parts(student)
    teachers, tokenizers = {}, {}
    for key, part in zip(keys, parts, strict=True):
        tokenizer = Path(student) / part.replace("text_encoder", "tokenizer")
        tokenizers[key] = PreTrainedTokenizerFast.from_pretrained(str(tokenizer))
        config = CLIPTextConfig(**json.loads((Path(student) / part / "config.json").read_text()))
        teachers[key] = IntegratedCLIP(CLIPTextModel, config, True)  # the checkpoint's own, random
    clip = CLIP(teachers, tokenizers)
    # As backend/diffusion_engine/sd15.py and sdxl.py give them.
    xl = {"minimal_clip_skip": 2, "clip_skip": 2, "final_layer_norm": False} if len(keys) == 2 else {}
    names = [f"text_processing_engine{key.removeprefix('clip') if xl else ''}" for key in keys]
    engines = {
        name: ClassicTextProcessingEngine(
            text_encoder=getattr(clip.cond_stage_model, key), tokenizer=tokenizers[key], embedding_key=key,
            embedding_expected_shape=2048 if xl else 768, text_projection=key == "clip_g",
            return_pooled=key == "clip_g", **xl,
        )
        for key, name in zip(keys, names, strict=True)
    }  # fmt: skip
    objects = {f"forge_objects{end}": SimpleNamespace(clip=clip) for end in ("", "_original", "_after_applying_lora")}
    model = SimpleNamespace(**engines, **objects)
    text_engine.plug_into_checkpoint(extension, model, student)
    found = [getattr(model, name) for name in names]
    holders = [getattr(model.forge_objects.clip.cond_stage_model, key) for key in keys]
    text_engine.print_comparison(
        found,
        student,
        shared=model.forge_objects.clip is model.forge_objects_original.clip,
        patched=all(holder is engine.text_encoder for holder, engine in zip(holders, found, strict=True)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
