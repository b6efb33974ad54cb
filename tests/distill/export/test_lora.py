"""LoRAs made for the teacher by the real peft package, on a student in its place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel

from data.cli import UserError
from distill.api import plug_into

PROMPT = "戴帽子拿剑的猫 and the dog，8k"


def config(*modules: str) -> Any:  # noqa: ANN401  an optional package
    peft: Any = pytest.importorskip("peft", reason="needs the extra `dev`: make install")
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(modules), init_lora_weights=False)


def opened(folder: Path) -> Any:  # noqa: ANN401  untyped
    kind: Any = StableDiffusionPipeline
    return kind.from_pretrained(folder, safety_checker=None)


def encoded(pipeline: Any) -> torch.Tensor:  # noqa: ANN401
    found: torch.Tensor = pipeline.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)[0]
    return found.detach()


def test_an_adapter_of_the_teachers_encoder_is_the_same_update_on_the_student(
    student: Path, teachers: Path, tmp_path: Path
) -> None:
    wrapping = config("q_proj", "v_proj", "fc1")
    peft: Any = pytest.importorskip("peft", reason="needs the extra `dev`: make install")
    torch.manual_seed(3)
    peft.get_peft_model(CLIPTextModel.from_pretrained(teachers / "text_encoder"), wrapping).save_pretrained(tmp_path)
    ids = torch.tensor([[518, 3, 4, 521, 519]])  # 521: a token that the teacher does not have
    plain = CLIPTextModel.from_pretrained(student / "text_encoder")
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path)
    with torch.no_grad():
        found = adapted(ids).last_hidden_state
        merged = adapted.merge_and_unload()
        assert torch.allclose(found, merged(ids).last_hidden_state, atol=1e-5)
    changed = {name for name, weight in merged.state_dict().items() if not torch.equal(weight, before[name])}
    wanted = {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight", "fc1.weight"))}
    assert changed == wanted
    assert len(changed) == 2 * 3  # every layer


def test_a_lora_file_of_the_teachers_pipeline_loads_in_the_students(
    student: Path, teachers: Path, tmp_path: Path
) -> None:
    """Made with diffusers for encoder and UNet; the encoder's moves the student, the UNet's is the teacher's own."""
    peft: Any = pytest.importorskip("peft", reason="needs the extra `dev`: make install")
    torch.manual_seed(4)
    teacher = opened(teachers)
    layers = {}
    for part, modules in (("text_encoder", ("q_proj", "v_proj")), ("unet", ("to_k", "to_v"))):
        wrapped = peft.get_peft_model(getattr(opened(teachers), part), config(*modules))
        layers[part] = peft.get_peft_model_state_dict(wrapped)
    layers = {part: {k.removeprefix("base_model.model."): v for k, v in own.items()} for part, own in layers.items()}
    kind: Any = StableDiffusionPipeline
    kind.save_lora_weights(tmp_path, unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"])

    swapped = plug_into(opened(teachers), student)
    before = encoded(swapped)
    for pipeline in (teacher, swapped):
        pipeline.load_lora_weights(tmp_path)
    after = encoded(swapped)
    assert (after - before).abs().max() > 1e-3
    latents, time = torch.randn(1, 4, 16, 16), torch.tensor(500)
    with torch.no_grad():
        drawn = [pipeline.unet(latents, time, after).sample for pipeline in (teacher, swapped)]
        bare = opened(teachers).unet(latents, time, after).sample
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] - bare).abs().max() > 1e-4
    with pytest.raises(UserError, match="a LoRA is loaded"):
        plug_into(teacher, student)  # which would lose it
    swapped.unload_lora_weights()
    assert torch.allclose(encoded(swapped), before, atol=1e-6)
