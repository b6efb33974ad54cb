"""Write an `xlmr` student as what it is: an encoder with a pooling and a projection, for sentence-transformers.

At the root the encoder with its tokenizer, as transformers loads it; beside it the stock modules that pool and project;
in `states.safetensors` the projection of its states into the teacher's width.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, PreTrainedTokenizerFast

from distill.export import PROBES, refuse_foreign_folder, write_tokenizer
from distill.export_sentences import write_modules
from distill.replace_folder import whole_folder
from distill.student.xlmr import XlmrStudent


def export_encoder(student: XlmrStudent, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write `student` to the folder `out`, whole or not at all, and compare what loads with what was trained."""
    refuse_foreign_folder(out)
    with whole_folder(out) as folder:
        student.encoder.save_pretrained(folder)
        write_tokenizer(tokenizer, folder, student.slots)
        write_modules(
            folder,
            student.to_pooled.weight,
            "cls_token" if student.pooling == "first" else "mean_tokens",
            student.slots,
        )
        states = {f"linear.{name}": weight.detach().clone() for name, weight in student.to_states.named_parameters()}
        save_file(states, folder / "states.safetensors")
        _verify(folder, student, tokenizer)


@torch.no_grad()
def _verify(folder: Path, student: XlmrStudent, tokenizer: PreTrainedTokenizerFast) -> None:
    """Any difference between the loaded encoder and the trained one is a bug."""
    loaded = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    trained = student.encoder.eval()
    given = tokenizer(list(PROBES), padding=True, truncation=True, max_length=student.slots, return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"]
    one, other = (model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (loaded, trained))
    if not torch.allclose(one, other, atol=1e-6):
        raise RuntimeError(f"{folder}: the encoder loads with other states than the trained one")
