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
    sys.path.insert(0, forge)
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
    text_engine: Any = importlib.import_module("text_engine")  # the file beside this one
    text_engine.plug_into_checkpoint(extension, model, student)
    engine = model.text_processing_engine
    text_engine.print_comparison(
        engine,
        tokenizer,
        student,
        shared=model.forge_objects.clip is model.forge_objects_original.clip,
        patched=model.forge_objects.clip.cond_stage_model.clip_l is engine.text_encoder,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
