"""The node in ComfyUI itself: on request its real server, over HTTP, against golden states."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill.api import load_student
from distill.export.folder import export
from distill.export.formats import GOLDEN_PROMPTS, write_comfyui_node, write_golden

SAVER = """
from pathlib import Path
from safetensors.torch import save_file

class SaveStates:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "save", True, "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"states": ("CONDITIONING",), "path": ("STRING", {})}}

    def save(self, states, path):
        save_file({"states": states[0][0].contiguous(), "pooled": states[0][1]["pooled_output"].contiguous()}, path)
        return {}

NODE_CLASS_MAPPINGS = {"SaveStates": SaveStates}
"""
WEIGHTED = "（一只猫：1.3），狗"


def ask(address: str, path: str, body: object = None) -> Any:  # noqa: ANN401  any JSON
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def base(model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast, pair: Path, tmp_path: Path) -> Path:
    """A folder as ComfyUI's users fill it: both kinds of students, the shipped package, a node that saves states."""
    student = tmp_path / "models" / "text_encoders" / "小" / "student"
    student.parent.mkdir(parents=True)
    export(model, tokenizer, student, [write_golden, write_comfyui_node])
    shutil.copytree(student / "comfyui" / "ComfyUI-Yuqiao", tmp_path / "custom_nodes" / "ComfyUI-Yuqiao")
    (student.parent / "xl").symlink_to(pair / "student")
    (tmp_path / "custom_nodes" / "save_states.py").write_text(SAVER)
    return tmp_path


@pytest.fixture
def server(base: Path) -> Iterator[str]:
    """The address of the running server; YUQIAO_COMFYUI_PYTHON is the interpreter with its packages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("YUQIAO_COMFYUI_PYTHON", sys.executable)
    options = [
        "--cpu",
        "--fp32-text-enc",
        "--disable-auto-launch",
        "--disable-api-nodes",
        "--base-directory",
        str(base),
    ]
    with (base / "log").open("w") as log:
        process = subprocess.Popen(
            [python, "main.py", "--listen", "127.0.0.1", "--port", str(port), *options],
            cwd=os.environ["YUQIAO_COMFYUI"], stdout=log, stderr=log, text=True,
        )  # fmt: skip
        try:
            for _ in range(400):
                assert process.poll() is None, (base / "log").read_text()
                try:
                    ask(f"http://127.0.0.1:{port}", "/system_stats")
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def encoded(server: str, base: Path, loader: str, student: str, texts: dict[str, str]) -> dict[str, Any]:
    """What the loader's CLIP gives for each text, by name: states and pooled states."""
    graph: dict[str, Any] = {"student": {"class_type": loader, "inputs": {"student": student}}}
    for name, text in texts.items():
        inputs = {"clip": ["student", 0], "text": text}
        graph[f"encode-{name}"] = {"class_type": "CLIPTextEncode", "inputs": inputs}
        where = {"states": [f"encode-{name}", 0], "path": str(base / f"{name}.safetensors")}
        graph[f"save-{name}"] = {"class_type": "SaveStates", "inputs": where}
    queued = ask(server, "/prompt", {"prompt": graph})
    assert not queued["node_errors"]
    for _ in range(400):
        if done := ask(server, f"/history/{queued['prompt_id']}").get(queued["prompt_id"]):
            break
        time.sleep(0.3)
    assert done["status"]["status_str"] == "success", done["status"]
    return {name: load_file(base / f"{name}.safetensors") for name in texts}


@pytest.mark.slow
@pytest.mark.skipif("YUQIAO_COMFYUI" not in os.environ, reason="YUQIAO_COMFYUI names a checkout of ComfyUI")
def test_golden_states_through_the_real_server(
    server: str, base: Path, tokenizer: PreTrainedTokenizerFast, pair: Path
) -> None:
    info = ask(server, "/object_info/LoadYuqiaoStudent")["LoadYuqiaoStudent"]
    assert info["input"]["required"]["student"][0] == ["小/student"]
    assert "能读中英文" in info["description"]
    version = ask(server, "/system_stats")["system"]["comfyui_version"]
    for loader, student, words in (
        ("LoadYuqiaoStudent", "小/student", tokenizer),
        ("LoadYuqiaoStudentXL", "小/xl", load_student(pair / "student").tokenizer),
    ):
        short = [row for row, text in enumerate(GOLDEN_PROMPTS) if len(words(text).input_ids) <= 77]
        texts = {str(row): GOLDEN_PROMPTS[row] for row in short} | {"long": GOLDEN_PROMPTS[-1], "weight": WEIGHTED}
        found = encoded(server, base, loader, student, texts)
        golden = load_file(base / "models/text_encoders" / student / "golden/vectors.safetensors")
        states = golden["prompt_embeds" if loader.endswith("XL") else "last_hidden_state"]
        difference = max(float((found[str(row)]["states"][0] - states[row]).abs().max()) for row in short)
        if loader.endswith("XL"):
            pooled = torch.cat([found[str(row)]["pooled"] for row in short])
            difference = max(difference, float((pooled - golden["pooled_prompt_embeds"][short]).abs().max()))
        print(f"ComfyUI {version}, {loader}: {len(short)} prompts, largest difference {difference:.1e}")
        assert difference < 1e-5 * max(1.0, float(states.abs().max()))
        assert found["long"]["states"].shape[1] in range(2 * 77, 9 * 77, 77)
        assert not found["weight"]["states"].isnan().any()
