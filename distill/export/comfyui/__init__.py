"""Custom node for ComfyUI that loads a student: put this folder into ComfyUI/custom_nodes/.

ComfyUI's own loaders hold 49,408 rows and CLIP's tokenizer; this one takes both from an exported folder, cuts prompts
into chunks at Chinese commas, and leaves the rest to ComfyUI's classes. It stands alone: the export copies it.
"""

import functools
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BACKTRACK = 20
"""Most tokens of a full chunk that move to the next, for the chunk to end behind a comma."""
WEIGHTS = Path("text_encoder") / "model.safetensors"
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

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  the name that ComfyUI calls
        """One drop-down: the students in ComfyUI's folders."""
        return {"required": {"student": (sorted(_students()), {"tooltip": TOOLTIP})}}

    @classmethod
    def IS_CHANGED(cls, student: str) -> float:  # noqa: N802
        """The time of the weights: an export over the folder is loaded again."""
        return (_students()[student] / WEIGHTS).stat().st_mtime

    def load(self, student: str) -> tuple[Any]:
        """The student as ComfyUI's CLIP; a folder that is gone, or weights that do not fit, raise ValueError."""
        folder = _students().get(student)
        if folder is None:
            raise ValueError(
                f"{student}: no exported student in models/text_encoders or models/yuqiao; export it there"
            )
        sd, utils = importlib.import_module("comfy.sd"), importlib.import_module("comfy.utils")
        # That of a pipeline: in Stable Diffusion 2 it has one layer less than the root, and its last states are read.
        weights = utils.load_torch_file(str(folder / WEIGHTS), safe_load=True)
        config = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        target = SimpleNamespace(
            params={}, clip=functools.partial(_model, config), tokenizer=functools.partial(_tokenizer, folder, config)
        )
        embeddings = importlib.import_module("folder_paths").get_folder_paths("embeddings")
        size = sum(weight.numel() for weight in weights.values())
        clip = sd.CLIP(target, embedding_directory=embeddings, parameters=size)
        _, unexpected = clip.load_sd(weights)
        if unexpected:
            raise ValueError(f"{student}: ComfyUI has no place for {unexpected[0]}")
        return (clip,)


def _students() -> dict[str, Path]:
    """Folder by name, of every export below ComfyUI's text encoders and its folder `yuqiao`, which is registered."""
    paths = importlib.import_module("folder_paths")
    paths.add_model_folder_path("yuqiao", str(Path(paths.models_dir) / "yuqiao"))
    roots = [Path(root) for kind in ("text_encoders", "yuqiao") for root in paths.get_folder_paths(kind)]
    found: dict[str, Path] = {}
    for root in roots:
        for tokenizer in sorted(root.glob("**/tokenizer/tokenizer.json")):
            folder = tokenizer.parents[1]
            if (folder / WEIGHTS).is_file():
                found.setdefault(folder.relative_to(root).as_posix(), folder)
    return found


def _model(config: dict[str, Any], **options: Any) -> Any:  # noqa: ANN401  ComfyUI's arguments and class
    """ComfyUI's SD 1 encoder with as many rows as the student has tokens."""
    sd1_clip = importlib.import_module("comfy.sd1_clip")
    special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}

    def clip_model(**settings: Any) -> Any:  # noqa: ANN401
        model = sd1_clip.SDClipModel(
            textmodel_json_config=config, special_tokens=special, return_projected_pooled=False, **settings
        )
        embeddings = model.transformer.text_model.embeddings
        old = embeddings.token_embedding
        embeddings.token_embedding = type(old)(
            config["vocab_size"], config["hidden_size"], device=old.weight.device, dtype=old.weight.dtype
        ).requires_grad_(requires_grad=False)
        return model

    return sd1_clip.SD1ClipModel(clip_model=clip_model, **options)


def _tokenizer(folder: Path, config: dict[str, Any], **options: Any) -> Any:  # noqa: ANN401
    """ComfyUI's tokenizer of SD 1 with the student's tokens, chunks and padding."""
    sd1_clip = importlib.import_module("comfy.sd1_clip")
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

    tokenizer = functools.partial(
        StudentTokenizer,
        tokenizer_path=str(folder / "tokenizer"),
        tokenizer_class=importlib.import_module("transformers").PreTrainedTokenizerFast,  # CLIP's has other rules
        embedding_size=config["hidden_size"],
    )
    return sd1_clip.SD1Tokenizer(tokenizer=tokenizer, **options)


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


NODE_CLASS_MAPPINGS = {"LoadYuqiaoStudent": LoadYuqiaoStudent}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadYuqiaoStudent": "Load Yuqiao student · 加载语桥学生模型"}
