"""Extension for AUTOMATIC1111's WebUI, Forge and reForge: put its folder into extensions/.

It exchanges the text encoder and the tokenizer of each checkpoint of Stable Diffusion 1.x (in Forge also 2.x) for those
of an exported student, as the checkpoint is loaded; a setting names the student's folder, another turns it off. It
stands alone: the export copies it.
"""

import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

COMMAS = ",，、。;；"
SECTION = ("yuqiao", "Yuqiao 语桥")


class TokenSet:
    """Equal to each of its tokens: the programs compare a token with the one comma of CLIP."""

    def __init__(self, ids: Iterable[int]) -> None:
        """`ids` of the tokens."""
        self.ids = frozenset(ids)

    def __eq__(self, other: object) -> bool:
        """Whether `other` is one of them."""
        return other in self.ids

    __hash__ = None  # type: ignore[assignment]


def plug_into_checkpoint(model: Any, folder: Path) -> None:  # noqa: ANN401  classes of the programs
    """Put the student in `folder` into `model`, a loaded checkpoint; what does not fit raises ValueError first."""
    config, tokenizer = _load_config(folder), _load_tokenizer(folder)
    if hasattr(model, "forge_objects") and not hasattr(model, "cond_stage_model"):
        if not hasattr(model, "text_processing_engine"):
            raise ValueError("only checkpoints of Stable Diffusion 1.x and 2.x have one text encoder")
        _check_width(model.text_processing_engine.text_encoder.transformer.config.hidden_size, config)
        _plug_into_forge(model, folder, config, tokenizer)
    else:
        embedder: Any = getattr(getattr(model, "cond_stage_model", None), "wrapped", None)
        clip_l = model.forge_objects.clip.cond_stage_model if hasattr(model, "forge_objects") else None
        if not hasattr(embedder, "transformer") or (clip_l is not None and not hasattr(clip_l, "clip_l")):
            raise ValueError("only checkpoints of Stable Diffusion 1.x have a text encoder that can be exchanged here")
        _check_width(embedder.transformer.config.hidden_size, config)
        _plug_into_webui(model, embedder, folder, config, tokenizer)


def _load_config(folder: Path) -> dict[str, Any]:
    path = folder / "text_encoder" / "config.json"
    if not path.is_file() or not (folder / "tokenizer" / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: no exported student (text_encoder/ and tokenizer/)")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def _load_tokenizer(folder: Path) -> Any:  # noqa: ANN401
    transformers = importlib.import_module("transformers")
    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(str(folder / "tokenizer"))
    except Exception as error:
        version = transformers.__version__
        raise ValueError(
            f"transformers {version} of this program cannot read the student's tokenizer.json; 4.45 and newer can"
        ) from error


def _check_width(width: int, config: Mapping[str, Any]) -> None:
    if width != config["hidden_size"]:
        raise ValueError(f"this checkpoint reads states of width {width}, the student's have {config['hidden_size']}")


def _load_weights(encoder: Any, folder: Path) -> None:  # noqa: ANN401
    weights = importlib.import_module("safetensors.torch").load_file(str(folder / "text_encoder" / "model.safetensors"))
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if not name.endswith(("text_projection.weight", "position_ids"))]
    if wrong or unexpected:
        raise ValueError(f"the student's weights do not fit: {[*wrong, *unexpected][0]}")


def _plug_into_forge(model: Any, folder: Path, config: dict[str, Any], tokenizer: Any) -> None:  # noqa: ANN401
    transformers, memory = importlib.import_module("transformers"), importlib.import_module("backend.memory_management")
    old = model.text_processing_engine
    place = {"device": memory.text_encoder_device(), "dtype": memory.text_encoder_dtype()}
    # Forge's layers have no weights before they are loaded, so that there is nothing to initialise.
    uninitialised = importlib.import_module("transformers.modeling_utils").no_init_weights()
    layers = importlib.import_module("backend.operations").using_forge_operations(**place, manual_cast_enabled=True)
    with uninitialised, layers:
        clip_class = importlib.import_module("backend.nn.clip").IntegratedCLIP
        student = clip_class(transformers.CLIPTextModel, transformers.CLIPTextConfig(**config), True).to(**place)
    _load_weights(student.transformer, folder)
    name = old.embedding_key  # clip_l, in Stable Diffusion 2 clip_h
    clip = importlib.import_module("backend.patcher.clip").CLIP({name: student}, {name: tokenizer})
    engine = type(old)(
        text_encoder=getattr(clip.cond_stage_model, name),
        tokenizer=tokenizer,
        embedding_dir=importlib.import_module("backend.args").dynamic_args["embedding_dir"],
        embedding_key=name,
        embedding_expected_shape=config["hidden_size"],
        minimal_clip_skip=old.minimal_clip_skip,
        clip_skip=old.clip_skip,
        final_layer_norm=old.final_layer_norm,
    )
    engine.comma_token = _comma_tokens(tokenizer)
    model.text_processing_engine = engine
    for objects in ("forge_objects", "forge_objects_original", "forge_objects_after_applying_lora"):
        getattr(model, objects).clip = clip


def _plug_into_webui(model: Any, embedder: Any, folder: Path, config: dict[str, Any], tokenizer: Any) -> None:  # noqa: ANN401
    transformers, hijacks = importlib.import_module("transformers"), importlib.import_module("modules.sd_hijack")
    old, hijack = embedder.transformer, model.cond_stage_model.hijack
    holder = model.forge_objects.clip.cond_stage_model.clip_l if hasattr(model, "forge_objects") else None  # reForge
    layers = nullcontext() if holder is None else _reforge_layers(holder)
    with layers:
        student = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))
    _load_weights(student, folder)
    embedder.transformer = student.to(device=old.device, dtype=old.dtype).eval().requires_grad_(requires_grad=False)
    embedder.tokenizer = tokenizer
    embeddings = student.text_model.embeddings
    embeddings.token_embedding = hijacks.EmbeddingsWithFixes(embeddings.token_embedding, hijack)
    model.cond_stage_model = type(model.cond_stage_model)(embedder, hijack)
    model.cond_stage_model.comma_token = _comma_tokens(tokenizer)
    model.cond_stage_model.id_pad = tokenizer.pad_token_id
    hijack.clip = model.cond_stage_model
    if holder is not None:  # what is moved between devices and patched by LoRAs
        student.text_model.embeddings.to(importlib.import_module("torch").float32)
        holder.transformer, model.clip = student, model.cond_stage_model
    hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)  # their names are ids of the tokenizer
    if "networks" in sys.modules:  # the built-in extension for LoRA, which finds modules by name
        sys.modules["networks"].assign_network_names_to_compvis_modules(model)


def _reforge_layers(holder: Any) -> Any:  # noqa: ANN401
    """While open, new layers are those of the encoder that `holder` has, which cast as they compute."""
    return importlib.import_module("ldm_patched.modules.ops").use_patched_ops(holder.operations)


def _comma_tokens(tokenizer: Any) -> TokenSet:  # noqa: ANN401
    return TokenSet(tokenizer(comma, add_special_tokens=False)["input_ids"][-1] for comma in COMMAS)


def on_model_loaded(model: Any) -> None:  # noqa: ANN401
    """Exchange the encoder if the settings say so; what does not fit is one line on the console and changes nothing."""
    options = importlib.import_module("modules.shared").opts
    if not options.yuqiao_enabled or not options.yuqiao_student.strip():
        return
    folder = Path(options.yuqiao_student.strip()).expanduser()
    try:
        plug_into_checkpoint(model, folder)
    except ValueError as error:
        print(f"Yuqiao: the checkpoint keeps its own text encoder: {error}")
    else:
        print(f"Yuqiao: prompts are read by {folder}")


def on_ui_settings() -> None:
    """A section of the settings with the folder and the switch."""
    shared = importlib.import_module("modules.shared")
    folder = "Folder of an exported student, for the next checkpoint that loads 学生模型文件夹，下次载入模型时生效"
    shared.opts.add_option("yuqiao_student", shared.OptionInfo("", folder, section=SECTION))
    shared.opts.add_option("yuqiao_enabled", shared.OptionInfo(True, "Use it 启用", section=SECTION))


if "modules.script_callbacks" in sys.modules:  # as the programs load their extensions
    callbacks: Any = sys.modules["modules.script_callbacks"]
    callbacks.on_ui_settings(on_ui_settings)
    callbacks.on_model_loaded(on_model_loaded)
