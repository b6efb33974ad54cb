"""`python reforge_run.py REFORGE EXTENSION STUDENT`: the extension on the real text encoder of a checkout of reForge.

Real are the tokenisation, the chunks, the emphasis, the layer for textual inversions, the classes of the encoder and
of its holder; stand-ins are the user interface, the checkpoint, and what moves models between devices. Needs the
release of transformers that reForge pins.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

STAND_INS = (
    "script_callbacks errors sd_unet patches hypernetworks hypernetworks.hypernetwork sd_hijack_open_clip "
    "sd_hijack_unet sd_hijack_xlmr xlmr xlmr_m18 sd_models shared textual_inversion textual_inversion.textual_inversion"
)


def main(reforge: str, extension: str, student: str) -> None:
    sys.path.insert(0, reforge)
    sys.argv = ["reforge", "--always-cpu"]
    importlib.import_module("ldm_patched.modules.options").enable_args_parsing()
    modules: Any = ModuleType("modules")
    modules.__path__ = [str(Path(reforge) / "modules")]
    sys.modules["modules"] = modules
    for name in STAND_INS.split():
        module = sys.modules[f"modules.{name}"] = ModuleType(f"modules.{name}")
        setattr(sys.modules[f"modules.{name}".rpartition(".")[0]], name.rpartition(".")[2], module)
    options = SimpleNamespace(
        emphasis="No norm", comma_padding_backtrack=20, CLIP_stop_at_last_layers=1,
        use_old_emphasis_implementation=False, textual_inversion_add_hashes_to_infotext=False,
    )  # fmt: skip
    vars(sys.modules["modules.shared"]).update(opts=options, cmd_opts=SimpleNamespace(embeddings_dir="", lowvram=False))
    for registers in ("on_ui_settings", "on_model_loaded"):
        setattr(sys.modules["modules.script_callbacks"], registers, lambda callback: None)
    reloaded: list[bool] = []
    database = SimpleNamespace(
        add_embedding_dir=lambda folder: None,
        load_textual_inversion_embeddings=lambda force_reload: reloaded.append(force_reload),
        find_embedding_at_position=lambda tokens, position: (None, None),
    )
    vars(sys.modules["modules.textual_inversion.textual_inversion"])["EmbeddingDatabase"] = lambda: database

    import torch
    from ldm_patched.modules.sd1_clip import SDClipModel
    from transformers import PreTrainedTokenizerFast

    forge_clip: Any = importlib.import_module("modules_forge.forge_clip")
    sd_hijack: Any = importlib.import_module("modules.sd_hijack")
    forge_clip.move_clip_to_gpu = lambda: None
    config = json.loads((Path(student) / "text_encoder" / "config.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(Path(student) / "tokenizer"))
    holder = SDClipModel(textmodel_json_config={**config, "vocab_size": 520})  # the checkpoint's own
    embeddings = holder.transformer.text_model.embeddings
    embeddings.token_embedding = sd_hijack.EmbeddingsWithFixes(embeddings.token_embedding, sd_hijack.model_hijack)
    embedder: Any = torch.nn.Module()
    embedder.tokenizer, embedder.transformer = tokenizer, holder.transformer
    clip = SimpleNamespace(cond_stage_model=SimpleNamespace(clip_l=holder))
    model = SimpleNamespace(
        cond_stage_model=forge_clip.CLIP_SD_15_L(embedder, sd_hijack.model_hijack),
        forge_objects=SimpleNamespace(clip=clip),
    )
    text_engine: Any = importlib.import_module("text_engine")  # the file beside this one
    text_engine.plug_into_checkpoint(extension, model, student)
    engine = model.cond_stage_model
    text_engine.print_comparison(
        engine,
        tokenizer,
        student,
        shared=model.clip is engine and reloaded == [True],
        patched=holder.transformer is engine.wrapped.transformer,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
