"""Custom node for ComfyUI that loads a student: put this folder into ComfyUI/custom_nodes/.

ComfyUI's own loaders hold 49,408 rows and CLIP's tokenizer; this one takes both from an exported folder, cuts prompts
into chunks at Chinese commas, and leaves the rest to ComfyUI's classes. It stands alone: the export copies it.
"""

import functools
import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BACKTRACK = 20
"""Most tokens of a full chunk that move to the next, for the chunk to end behind a comma."""
WEIGHTS = "model.safetensors"
PENULTIMATE = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False}
"""How SDXL reads its encoders: the states before the last layer, without the final norm."""
FULL_WIDTH_WEIGHT = re.compile(r"[(（]([^()（）]*)[:：]\s*([.．\d]+)\s*[)）]")
EMBEDDING = re.compile(r"(embedding:[^\s,，、。；;：()（）]+)")
CLAUSE = re.compile(r"[^,，、。;；]*[,，、。;；]*")
TOOLTIP = (
    "Folder of an exported student, below models/text_encoders or models/yuqiao. "
    "导出的学生模型文件夹，放在 models/text_encoders 或 models/yuqiao 之下。"
)
Token = tuple[Any, float, int, bool]
"""Id or vector, weight, number of the character or word that it belongs to, and whether a clause ends behind it."""


class LoadYuqiaoStudent:
    """Exported folder in, CLIP out, for prompts of Stable Diffusion 1.x or 2.x."""

    CATEGORY = "loaders"
    DESCRIPTION = "A CLIP that reads Chinese and English, in the place of the checkpoint's. 能读中英文提示词的 CLIP。"
    FUNCTION = "load"
    RETURN_TYPES = ("CLIP",)
    PARTS: Mapping[str, str] = {"clip_l": "text_encoder"}
    """Folder of each of ComfyUI's encoders."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  the name that ComfyUI calls
        """One drop-down: the students in ComfyUI's folders that have these encoders."""
        return {"required": {"student": (sorted(_students(len(cls.PARTS))), {"tooltip": TOOLTIP})}}

    @classmethod
    def IS_CHANGED(cls, student: str) -> float:  # noqa: N802
        """The time of the weights: an export over the folder is loaded again."""
        folder = _students(len(cls.PARTS))[student]
        return max((folder / part / WEIGHTS).stat().st_mtime for part in cls.PARTS.values())

    def load(self, student: str) -> tuple[Any]:
        """The student as ComfyUI's CLIP; a folder that is gone, or weights that do not fit, raise ValueError."""
        folder = _students(len(self.PARTS)).get(student)
        if folder is None:
            raise ValueError(
                f"{student}: no exported student in models/text_encoders or models/yuqiao; export it there"
            )
        sd, utils = importlib.import_module("comfy.sd"), importlib.import_module("comfy.utils")
        # Those of a pipeline: in Stable Diffusion 2 it has one layer less than the root, and its last states are read.
        weights = {
            name: utils.load_torch_file(str(folder / part / WEIGHTS), safe_load=True)
            for name, part in self.PARTS.items()
        }
        encoders = {name: Encoder(folder, part) for name, part in self.PARTS.items()}
        target = SimpleNamespace(
            params={}, clip=functools.partial(self.model, encoders), tokenizer=functools.partial(self.tokens, encoders)
        )
        embeddings = importlib.import_module("folder_paths").get_folder_paths("embeddings")
        size = sum(weight.numel() for each in weights.values() for weight in each.values())
        clip = sd.CLIP(target, embedding_directory=embeddings, parameters=size)
        for name, each in weights.items():
            _, unexpected = getattr(clip.cond_stage_model, name).load_sd(each)
            if unexpected:
                raise ValueError(f"{student}: ComfyUI has no place for {unexpected[0]}")
        return (clip,)

    @staticmethod
    def model(encoders: "Mapping[str, Encoder]", **options: Any) -> Any:  # noqa: ANN401  ComfyUI's arguments and class
        """ComfyUI's SD 1 encoder with as many rows as the student has tokens."""
        build = functools.partial(encoders["clip_l"].model, return_projected_pooled=False)
        return importlib.import_module("comfy.sd1_clip").SD1ClipModel(clip_model=build, **options)

    @staticmethod
    def tokens(encoders: "Mapping[str, Encoder]", **options: Any) -> Any:  # noqa: ANN401
        """ComfyUI's tokenizer of SD 1 with the student's tokens, chunks and padding."""
        return importlib.import_module("comfy.sd1_clip").SD1Tokenizer(tokenizer=encoders["clip_l"].tokenizer, **options)


class LoadYuqiaoStudentXL(LoadYuqiaoStudent):
    """Exported folder of both encoders in, CLIP out, for prompts of SDXL."""

    PARTS: Mapping[str, str] = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}

    @staticmethod
    def model(encoders: "Mapping[str, Encoder]", **options: Any) -> Any:  # noqa: ANN401
        """ComfyUI's pair of SDXL, which reads the states before each last layer, with the student's encoders."""
        base: Any = importlib.import_module("comfy.sdxl_clip").SDXLClipModel

        class Pair(base):  # type: ignore[misc]
            def __init__(self, dtype: Any, model_options: dict[str, Any], **more: Any) -> None:  # noqa: ANN401
                importlib.import_module("torch").nn.Module.__init__(self)  # theirs would make both encoders first
                self.dtypes = {dtype}
                for name, encoder in encoders.items():
                    named = {"dtype": dtype, "model_options": {**model_options, "model_name": name}, **more}
                    setattr(self, name, encoder.model(**named, **PENULTIMATE))

        return Pair(**options)

    @staticmethod
    def tokens(encoders: "Mapping[str, Encoder]", **options: Any) -> Any:  # noqa: ANN401
        """ComfyUI's pair of tokenizers with the student's."""
        pair = importlib.import_module("comfy.sdxl_clip").SDXLTokenizer(**options)
        for name, encoder in encoders.items():
            setattr(pair, name, encoder.tokenizer(embedding_key=name, **options))
        return pair


def _students(encoders: int) -> dict[str, Path]:
    """Folder by name, of every export below ComfyUI's text encoders and its folder `yuqiao`, which is registered.

    Those with so many encoders: one, or SDXL's two.
    """
    paths = importlib.import_module("folder_paths")
    paths.add_model_folder_path("yuqiao", str(Path(paths.models_dir) / "yuqiao"))
    roots = [Path(root) for kind in ("text_encoders", "yuqiao") for root in paths.get_folder_paths(kind)]
    found: dict[str, Path] = {}
    for root in roots:
        for folder in (Path(path) for path, _, _ in os.walk(root, followlinks=True)):  # a student may be a link
            if (folder / "tokenizer" / "tokenizer.json").is_file() and len(
                list(folder.glob(f"text_encoder*/{WEIGHTS}"))
            ) == encoders:
                found.setdefault(folder.relative_to(root).as_posix(), folder)
    return found


class Encoder:
    """One text encoder of a student, as ComfyUI's classes of a model and of its tokenizer."""

    def __init__(self, folder: Path, part: str) -> None:
        self.config: dict[str, Any] = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        self.tokenizer_folder = folder / part.replace("text_encoder", "tokenizer")

    def model(self, **settings: Any) -> Any:  # noqa: ANN401  ComfyUI's arguments and class
        """An SDClipModel with as many rows as the student has tokens."""
        sd1_clip, config = importlib.import_module("comfy.sd1_clip"), self.config
        special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}
        model = sd1_clip.SDClipModel(textmodel_json_config=config, special_tokens=special, **settings)
        embeddings = model.transformer.text_model.embeddings
        old = embeddings.token_embedding
        embeddings.token_embedding = type(old)(
            config["vocab_size"], config["hidden_size"], device=old.weight.device, dtype=old.weight.dtype
        ).requires_grad_(requires_grad=False)
        return model

    def tokenizer(self, **settings: Any) -> Any:  # noqa: ANN401
        """An SDTokenizer with the student's tokens, chunks and padding."""
        sd1_clip, config = importlib.import_module("comfy.sd1_clip"), self.config
        base: Any = sd1_clip.SDTokenizer

        class StudentTokenizer(base):  # type: ignore[misc]
            """Weights and embeddings as ComfyUI has them; chunks end behind commas of either width."""

            def tokenize_with_weights(
                self,
                text: str,
                return_word_ids: bool = False,
                **_: Any,  # noqa: ANN401
            ) -> list[list[tuple[Any, ...]]]:
                start, end, pad = (config[f"{name}_token_id"] for name in ("bos", "eos", "pad"))
                tokens, length = list(_tokens(self, text, sd1_clip)), int(config["max_position_embeddings"])
                chunks = []
                for chunk in _split(tokens, length - 2):
                    rows: list[tuple[Any, ...]] = [(start, 1.0, 0), *(token[:3] for token in chunk), (end, 1.0, 0)]
                    rows += [(pad, 1.0, 0)] * (length - len(rows))
                    chunks.append(rows if return_word_ids else [row[:2] for row in rows])
                return chunks

        return StudentTokenizer(
            tokenizer_path=str(self.tokenizer_folder),
            tokenizer_class=importlib.import_module("transformers").PreTrainedTokenizerFast,  # CLIP's has other rules
            embedding_size=config["hidden_size"],
            **settings,
        )


def _tokens(tokenizer: Any, text: str, sd1_clip: Any) -> Iterator[Token]:  # noqa: ANN401
    """The tokens of a prompt; those of one character, or of one embedding, have one number."""
    half_width = FULL_WIDTH_WEIGHT.sub(lambda match: f"({match[1]}:{match[2].replace('．', '.')})", text)
    number = 0
    for segment, weight in sd1_clip.token_weights(sd1_clip.escape_important(half_width), 1.0):
        for part in EMBEDDING.split(sd1_clip.unescape_important(segment)):
            if part.startswith("embedding:"):
                vectors, part = tokenizer._try_get_embedding(part.removeprefix("embedding:"))
                number += 1
                yield from ((vector, weight, number, False) for vector in (vectors if vectors is not None else ()))
            for clause in CLAUSE.findall(part):
                encoding = tokenizer.tokenizer(clause, add_special_tokens=False, return_offsets_mapping=True)
                ids, spans = encoding["input_ids"], encoding["offset_mapping"]
                for place, token_id in enumerate(ids):
                    number += place == 0 or spans[place][0] >= spans[place - 1][1]  # else bytes of one character
                    yield token_id, weight, number, place == len(ids) - 1 and clause[-1] in ",，、。;；"


def _split(tokens: list[Token], length: int) -> Iterator[list[Token]]:
    """Chunks of at most `length` tokens, which end behind a comma near their end, and never inside a character."""
    while len(tokens) > length:
        cuts = range(length, max(length - BACKTRACK, 0), -1)
        whole = (cut for cut in range(length, 0, -1) if tokens[cut - 1][2] != tokens[cut][2])
        cut = next((cut for cut in cuts if tokens[cut - 1][3]), None) or next(whole, length)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


NODE_CLASS_MAPPINGS = {"LoadYuqiaoStudent": LoadYuqiaoStudent, "LoadYuqiaoStudentXL": LoadYuqiaoStudentXL}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadYuqiaoStudent": "Load Yuqiao student · 加载语桥学生模型",
    "LoadYuqiaoStudentXL": "Load Yuqiao student (SDXL) · 加载语桥学生模型（SDXL）",
}
