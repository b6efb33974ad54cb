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
    text_engine: Any = importlib.import_module("text_engine")  # the file beside this one
    keys, parts = text_engine.parts(student)
    classes = [forge_clip.CLIP_SD_XL_L, forge_clip.CLIP_SD_XL_G] if len(keys) == 2 else [forge_clip.CLIP_SD_15_L]
    holders, own = {}, []
    for key, part, kind in zip(keys, parts, classes, strict=True):
        config = json.loads((Path(student) / part / "config.json").read_text())
        holder = holders[key] = SDClipModel(textmodel_json_config={**config, "vocab_size": 520})  # the checkpoint's own
        embeddings = holder.transformer.text_model.embeddings
        embeddings.token_embedding = sd_hijack.EmbeddingsWithFixes(embeddings.token_embedding, sd_hijack.model_hijack)
        embedder: Any = torch.nn.Module()
        tokenizer = Path(student) / part.replace("text_encoder", "tokenizer")
        embedder.tokenizer = PreTrainedTokenizerFast.from_pretrained(str(tokenizer))
        embedder.transformer, embedder.text_projection = holder.transformer, holder.text_projection
        embedder.layer, embedder.layer_idx, embedder.return_pooled = "hidden", -2, key == "clip_g"
        own.append(kind(embedder, sd_hijack.model_hijack))
    model = SimpleNamespace(
        forge_objects=SimpleNamespace(clip=SimpleNamespace(cond_stage_model=SimpleNamespace(**holders)))
    )
    if len(own) == 2:
        model.conditioner = SimpleNamespace(embedders=own)
        model.cond_stage_model = model.clip = model.conditioner
    else:
        model.cond_stage_model = own[0]
    text_engine.plug_into_checkpoint(extension, model, student)
    engines = model.conditioner.embedders if len(own) == 2 else [model.cond_stage_model]
    text_engine.print_comparison(
        engines,
        student,
        shared=model.clip is model.cond_stage_model and reloaded == [True],
        patched=all(
            holder.transformer is engine.wrapped.transformer
            for holder, engine in zip(holders.values(), engines, strict=True)
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
