"""Weights, BREAK, long and negative prompts, on an exported student in a pipeline."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from data.cli import UserError
from distill.api import plug_into
from distill.long_prompts import BACKTRACK, WeightedText, parse_weights, prompt_states, split_chunks
from tests.eval.tiny import tiny_student_tokenizer


@pytest.fixture
def pipeline(student: Path, teachers: Path) -> Any:  # noqa: ANN401  untyped
    kind: Any = StableDiffusionPipeline
    made = plug_into(kind.from_pretrained(teachers, safety_checker=None), student)
    made.set_progress_bar_config(disable=True)
    return made


def own(pipeline: Any, prompt: str) -> torch.Tensor:  # noqa: ANN401
    found: torch.Tensor = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
    return found


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("一只猫", [("一只猫", 1.0)]),
        ("戴(帽子)的猫", [("戴", 1.0), ("帽子", 1.1), ("的猫", 1.0)]),
        ("(拿剑:1.5)的猫", [("拿剑", 1.5), ("的猫", 1.0)]),
        ("((雪山))", [("雪山", 1.1 * 1.1)]),
        ("(雪山 (红:2) 飞机:0.5)", [("雪山 ", 0.5), ("红", 1.0), (" 飞机", 0.5)]),
        ("[雾]", [("雾", 1 / 1.1)]),
        (r"\(留白\)", [("(留白)", 1.0)]),
        ("水墨（留白）：山", [("水墨（留白）：山", 1.0)]),
        ("时间 12:30) ok", [("时间 12:30) ok", 1.0)]),
        ("(没关", [("没关", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("Big (Bear:1.2)", [("Big ", 1.0), ("Bear", 1.2)]),
        ("(水墨画：1.3)，山", [("水墨画", 1.3), ("，山", 1.0)]),
        ("（水墨画：1.3），山", [("水墨画", 1.3), ("，山", 1.0)]),
        ("（水墨画:１．３）", [("水墨画", 1.3)]),
        ("((水墨画：1.5)（山）:2)", [("水墨画", 3.0), ("（山）", 2.0)]),
        ("（（红：2)）", [("（", 1.0), ("红", 2.0), ("）", 1.0)]),
        ("（a)（b", [("（a)（b", 1.0)]),
        ("(（a)", [("（a", 1.1)]),
        ("比例：1.5", [("比例：1.5", 1.0)]),
        ("", []),
    ],
)
def test_pieces(prompt: str, wanted: list[tuple[str, float]]) -> None:
    found = parse_weights(prompt)
    assert [piece.text for piece in found] == [text for text, _ in wanted]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in wanted])


def test_break_stands_apart() -> None:
    assert parse_weights("山 BREAK 水") == [WeightedText("山 "), WeightedText(None), WeightedText(" 水")]
    assert parse_weights("BREAKFAST") == [WeightedText("BREAKFAST")]


@pytest.mark.parametrize("comma", [",", "，", "、", "。", "；"])
def test_a_chunk_ends_behind_a_comma_of_either_width(comma: str) -> None:
    words = tiny_student_tokenizer()
    prompt = f"the cat the dog{comma} " * 30
    found = split_chunks(prompt, words, 75)
    assert len(found) > 1
    for chunk in found[:-1]:
        assert 75 - BACKTRACK < len(chunk) <= 75
        assert chunk[-1].ends_clause
    whole = words(prompt, add_special_tokens=False).input_ids
    assert [token.id for chunk in found for token in chunk] == whole


def test_without_a_comma_chunks_are_full_and_nothing_is_lost() -> None:
    words = tiny_student_tokenizer()
    found = split_chunks("猫 the dog " * 60, words, 75)
    assert [len(chunk) for chunk in found[:-1]] == [75] * (len(found) - 1)
    assert sum(map(len, found)) == len(words("猫 the dog " * 60, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    "prompt", ["", "机械狗", "戴帽子拿剑的猫", "梵高星空", "a 红色的 helicopter，8k", "\x00\u200b\x1b"]
)
def test_a_plain_prompt_is_the_pipelines_own(prompt: str, pipeline: Any) -> None:  # noqa: ANN401
    found = prompt_states(pipeline, prompt)
    assert torch.allclose(found["prompt_embeds"], own(pipeline, prompt), atol=1e-6)
    assert torch.allclose(found["negative_prompt_embeds"], own(pipeline, ""), atol=1e-6)


def test_weights_scale_the_states_of_their_tokens_and_keep_the_norm(pipeline: Any) -> None:  # noqa: ANN401
    plain = own(pipeline, "the cat the dog")[0].detach()
    strong = prompt_states(pipeline, "the (cat:1.5) the dog")["prompt_embeds"][0]
    ratio = (strong / plain).mean(dim=1)
    assert ratio[2] / ratio[1] == pytest.approx(1.5, rel=1e-4)  # start, the, cat
    assert ratio[3] / ratio[1] == pytest.approx(1, rel=1e-4)
    assert strong.norm() == pytest.approx(float(plain.norm()), rel=1e-5)


def test_break_is_two_prompts_side_by_side(pipeline: Any) -> None:  # noqa: ANN401
    found = prompt_states(pipeline, "the cat BREAK 猫")["prompt_embeds"]
    wanted = torch.cat([own(pipeline, "the cat"), own(pipeline, "猫")], dim=1)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_lists_of_prompts_and_no_negative_one(pipeline: Any) -> None:  # noqa: ANN401
    many = prompt_states(pipeline, ["机械狗", "一幅画，" * 60], negative=["低质量", ""])
    assert many["prompt_embeds"].shape == many["negative_prompt_embeds"].shape
    assert many["prompt_embeds"].shape[0] == 2
    assert torch.allclose(many["prompt_embeds"][:1, :77], own(pipeline, "机械狗"), atol=1e-6)
    one = prompt_states(pipeline, ["机械狗", "猫"], negative="低质量")["negative_prompt_embeds"]
    assert torch.allclose(one, own(pipeline, "低质量").expand(2, -1, -1), atol=1e-6)
    assert torch.equal(
        prompt_states(pipeline, "机械狗", None)["negative_prompt_embeds"],
        prompt_states(pipeline, "机械狗")["negative_prompt_embeds"],
    )
    with pytest.raises(UserError, match="2 prompts and 3 negative ones"):
        prompt_states(pipeline, ["机械狗", "猫"], ["a", "b", "c"])
    drawn = pipeline(**many, num_inference_steps=1, height=16, width=16, output_type="np").images
    assert drawn.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("prompt", ["(猫:" + "9" * 400 + ")", "(" * 8000 + "猫"])
def test_weights_that_overflow_are_refused(prompt: str, pipeline: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=r"prompt_states: a weight of .* overflows; give weights below 10"):
        prompt_states(pipeline, prompt)


def test_syntax_that_is_not_supported_is_named_in_one_warning(pipeline: Any) -> None:  # noqa: ANN401
    with pytest.warns(UserWarning, match="does not support") as caught:
        prompt_states(pipeline, ["[猫:狗:0.5]，<lora:水墨:0.8>", "[红|蓝]的猫 AND 狗"], "[a：b：3]")
    (warning,) = caught
    for name in ("[a:b:0.5]", "[a|b]", "AND", "<lora:name:1>"):
        assert name in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompt_states(pipeline, "(猫:1.2) [雾] a|b, SAND <my-cat> 12:30")


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_takes_earlier_states_through_the_final_norm(skip: int, pipeline: Any) -> None:  # noqa: ANN401
    ids = pipeline.tokenizer("机械狗", padding="max_length", max_length=77, return_tensors="pt").input_ids
    encoder = pipeline.text_encoder
    with torch.no_grad():
        wanted = encoder.final_layer_norm(encoder(ids, output_hidden_states=True).hidden_states[-1 - skip])
    assert torch.equal(prompt_states(pipeline, "机械狗", clip_skip=skip)["prompt_embeds"], wanted)
    assert not torch.allclose(wanted, own(pipeline, "机械狗"), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "typed"),
    [("水墨風", "一只水墨风的猫"), ("水墨風", "一只水墨風的猫"), ("<My-Cat>", "戴帽子的<my-cat>猫"),
     ("<My-Cat>", "戴帽子的<My-Cat>猫"), ("<my-cat>", "戴帽子的(<MY-CAT>:1.2)，猫"),
     ("水墨風", "水墨风 水墨风_1 水墨风_2")],
)  # fmt: skip
def test_all_vectors_of_a_textual_inversion(name: str, typed: str, pipeline: Any) -> None:  # noqa: ANN401
    first = len(pipeline.tokenizer)
    pipeline.load_textual_inversion({name: torch.eye(3, 24)}, token=name)
    ids = [token.id for chunk in split_chunks(typed, pipeline.tokenizer, 75) for token in chunk]
    assert [token_id for token_id in ids if token_id >= first] == [first, first + 1, first + 2]
    assert "".join(map(str, (first, first + 1, first + 2))) in "".join(map(str, ids))


def test_a_long_prompt_with_a_negative_one_draws(pipeline: Any) -> None:  # noqa: ANN401
    both = prompt_states(pipeline, "一幅画，" * 60, "低质量，模糊")
    assert both["prompt_embeds"].shape == both["negative_prompt_embeds"].shape
    assert both["prompt_embeds"].shape[1] > 2 * 77
    assert torch.allclose(both["negative_prompt_embeds"][:, 77:154], own(pipeline, ""), atol=1e-6)
    drawn = pipeline(**both, num_inference_steps=1, height=16, width=16, output_type="np").images
    assert drawn.shape == (1, 16, 16, 3)
    huge = prompt_states(pipeline, "猫" * 10_000)["prompt_embeds"]
    assert torch.isfinite(huge).all()


def test_a_token_of_textual_inversion_keeps_its_weight(pipeline: Any) -> None:  # noqa: ANN401
    pipeline.load_textual_inversion({"<my-cat>": torch.linspace(-1, 1, 24)[None]}, token="<my-cat>")
    number = pipeline.tokenizer.convert_tokens_to_ids("<my-cat>")
    found = split_chunks("戴帽子的(<my-cat>:1.3)，8k", pipeline.tokenizer, 75)
    assert [token.weight for token in found[0] if token.id == number] == [1.3]
