"""Extension for AUTOMATIC1111's WebUI, Forge and reForge: put its folder into extensions/.

It exchanges the text encoder and the tokenizer of each checkpoint of Stable Diffusion 1.x (in Forge also 2.x), in Forge
and reForge also both of SDXL's, for those of an exported student, as the checkpoint is loaded; a setting names the
student's folder, another turns it off. It stands alone: the export copies it.
"""

import importlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAS = ",，、。;；"
SECTION = ("yuqiao", "Yuqiao 语桥")
FORGE_OPTIONS = (
    "embedding_key", "text_projection", "minimal_clip_skip", "clip_skip", "return_pooled", "final_layer_norm",
)  # fmt: skip
"""What an engine of Forge keeps from the one before it."""


class TokenSet:
    """Equal to each of its tokens: the programs compare a token with the one comma of CLIP."""

    def __init__(self, ids: Iterable[int]) -> None:
        """`ids` of the tokens."""
        self.ids = frozenset(ids)

    def __eq__(self, other: object) -> bool:
        """Whether `other` is one of them."""
        return other in self.ids

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class _Encoder:
    """One text encoder of the student: its config, its tokenizer, and the file of its weights."""

    config: dict[str, Any]
    tokenizer: Any
    weights: Path


def plug_into_checkpoint(model: Any, folder: Path) -> None:  # noqa: ANN401  classes of the programs
    """Put the student in `folder` into `model`, a loaded checkpoint; ValueError, and no change, if it cannot."""
    forge = hasattr(model, "forge_objects") and not hasattr(model, "cond_stage_model")
    student = _load_student(folder)
    own = _forge_engines(model) if forge else _webui_embedders(model)
    if len(own) != len(student):
        raise ValueError(f"this checkpoint's text encoders are {len(own)}, the student's {len(student)}")
    for each, encoder in zip(own.values(), student, strict=True):
        clip = each.text_encoder if forge else each.wrapped
        _check_width(clip.transformer.config.hidden_size, encoder.config)
    (_plug_into_forge if forge else _plug_into_webui)(model, own, student)


def _load_student(folder: Path) -> list[_Encoder]:
    """The student's encoder, or both of SDXL."""
    names = ["text_encoder", *(["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else [])]
    student = []
    for name in names:
        path, tokenizer = folder / name / "config.json", folder / name.replace("text_encoder", "tokenizer")
        if not path.is_file() or not (tokenizer / "tokenizer.json").is_file():
            raise ValueError(f"{folder}: no exported student ({name}/ and {tokenizer.name}/)")
        config = json.loads(path.read_text(encoding="utf-8"))
        student.append(_Encoder(config, _load_tokenizer(tokenizer), folder / name / "model.safetensors"))
    return student


def _load_tokenizer(folder: Path) -> Any:  # noqa: ANN401
    transformers = importlib.import_module("transformers")
    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    except Exception as error:
        version = transformers.__version__
        raise ValueError(
            f"transformers {version} of this program cannot read the student's tokenizer.json; 4.45 and newer can"
        ) from error


def _check_width(width: int, config: Mapping[str, Any]) -> None:
    if width != config["hidden_size"]:
        raise ValueError(f"this checkpoint reads states of width {width}, the student's have {config['hidden_size']}")


def _load_weights(module: Any, weights: Mapping[str, Any]) -> None:  # noqa: ANN401
    missing, unexpected = module.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if not name.endswith(("text_projection.weight", "position_ids"))]
    if wrong or unexpected:
        raise ValueError(f"the student's weights do not fit: {[*wrong, *unexpected][0]}")


def _forge_engines(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Forge's engines of the checkpoint's CLIPs by the names of their attributes; not those beside a T5."""
    names = ["text_processing_engine"]
    if not hasattr(model, names[0]):
        names = ["text_processing_engine_l", "text_processing_engine_g"]
    if hasattr(model, "text_processing_engine_t5") or not all(hasattr(model, name) for name in names):
        raise ValueError("only checkpoints of Stable Diffusion 1.x, 2.x and XL have CLIPs alone for text encoders")
    return {name: getattr(model, name) for name in names}


def _plug_into_forge(model: Any, engines: Mapping[str, Any], student: Sequence[_Encoder]) -> None:  # noqa: ANN401
    transformers, memory = importlib.import_module("transformers"), importlib.import_module("backend.memory_management")
    clip_class = importlib.import_module("backend.nn.clip").IntegratedCLIP
    load_file = importlib.import_module("safetensors.torch").load_file
    place = {"device": memory.text_encoder_device(), "dtype": memory.text_encoder_dtype()}
    models, tokenizers = {}, {}
    for old, encoder in zip(engines.values(), student, strict=True):
        # Forge's layers have no weights before they are loaded, so that there is nothing to initialise.
        uninitialised = importlib.import_module("transformers.modeling_utils").no_init_weights()
        layers = importlib.import_module("backend.operations").using_forge_operations(**place, manual_cast_enabled=True)
        config = transformers.CLIPTextConfig(**encoder.config)
        with uninitialised, layers:
            integrated = clip_class(transformers.CLIPTextModel, config, True).to(**place)
        _load_weights(integrated.transformer, load_file(str(encoder.weights)))
        models[old.embedding_key] = integrated  # clip_l, clip_g; in Stable Diffusion 2 clip_h
        tokenizers[old.embedding_key] = encoder.tokenizer
    clip = importlib.import_module("backend.patcher.clip").CLIP(models, tokenizers)
    for name, old in engines.items():
        engine = type(old)(
            text_encoder=getattr(clip.cond_stage_model, old.embedding_key),
            tokenizer=tokenizers[old.embedding_key],
            embedding_dir=importlib.import_module("backend.args").dynamic_args["embedding_dir"],
            embedding_expected_shape=old.embeddings.expected_shape,
            **{key: getattr(old, key) for key in FORGE_OPTIONS},
        )
        engine.comma_token = _comma_tokens(engine.tokenizer)
        setattr(model, name, engine)
    for objects in ("forge_objects", "forge_objects_original", "forge_objects_after_applying_lora"):
        getattr(model, objects).clip = clip


def _webui_embedders(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """The checkpoint's wrapped CLIPs by the names that reForge has for them."""
    conditioner = getattr(model, "conditioner", None)  # of SDXL; its others are sizes
    found = [getattr(model, "cond_stage_model", None)] if conditioner is None else list(conditioner.embedders[:2])
    own = dict(zip(("clip_l", "clip_g"), found, strict=False))
    holders = _reforge_holders(model)
    for name, each in own.items():
        held = holders is None or hasattr(holders, name)
        if not held or not hasattr(getattr(each, "wrapped", None), "transformer"):
            raise ValueError(
                "only checkpoints of Stable Diffusion 1.x, in reForge also XL, have a text encoder to exchange here"
            )
    return own


def _reforge_holders(model: Any) -> Any:  # noqa: ANN401
    """What reForge moves and patches, by the names of the CLIPs; None in AUTOMATIC1111's own."""
    return model.forge_objects.clip.cond_stage_model if hasattr(model, "forge_objects") else None


def _plug_into_webui(model: Any, embedders: Mapping[str, Any], student: Sequence[_Encoder]) -> None:  # noqa: ANN401
    holders = _reforge_holders(model)
    for place, ((name, old), encoder) in enumerate(zip(embedders.items(), student, strict=True)):
        holder = None if holders is None else getattr(holders, name)
        new = _webui_embedder(old, encoder, holder, name)
        if getattr(model, "conditioner", None) is None:
            model.cond_stage_model = new.hijack.clip = new
            if holder is not None:
                model.clip = new
        else:
            model.conditioner.embedders[place] = new
    # The names of textual inversions are ids of the tokenizer.
    new.hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    if "networks" in sys.modules:  # the built-in extension for LoRA, which finds modules by name
        sys.modules["networks"].assign_network_names_to_compvis_modules(model)


def _webui_embedder(own: Any, encoder: _Encoder, holder: Any, name: str) -> Any:  # noqa: ANN401
    """An embedder as `own` that reads by the student; `holder` is what reForge moves and patches, if it is reForge."""
    transformers, hijacks = importlib.import_module("transformers"), importlib.import_module("modules.sd_hijack")
    torch = importlib.import_module("torch")
    embedder, tokenizer = own.wrapped, encoder.tokenizer
    old = embedder.transformer
    with nullcontext() if holder is None else _reforge_layers(holder):
        student = transformers.CLIPTextModel(transformers.CLIPTextConfig(**encoder.config))
    weights = importlib.import_module("safetensors.torch").load_file(str(encoder.weights))
    projection = weights.pop("text_projection.weight", None)  # of the pooled states
    _load_weights(student, weights)
    embedder.transformer = student.to(device=old.device, dtype=old.dtype).eval().requires_grad_(requires_grad=False)
    embedder.tokenizer = tokenizer
    embeddings = student.text_model.embeddings
    keyed = {"textual_inversion_key": name} if name == "clip_g" else {}
    embeddings.token_embedding = hijacks.EmbeddingsWithFixes(embeddings.token_embedding, own.hijack, **keyed)
    new = type(own)(embedder, own.hijack)
    new.comma_token = _comma_tokens(tokenizer)
    new.id_start, new.id_end, new.id_pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    if holder is not None:
        student.text_model.embeddings.to(torch.float32)
        holder.transformer = student
        if projection is not None:
            fixed = torch.nn.Parameter(projection.T.to(old.device, old.dtype), requires_grad=False)
            embedder.text_projection = holder.text_projection = fixed
    return new


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
