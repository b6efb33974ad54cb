"""Recorded hashes of what the command lines write, from raw corpora to a benchmark's result: no renaming changes them.

`python tests/test_golden_hashes.py --record` writes golden_hashes.json anew. Kernels differ from machine to machine: on
another processor or release of torch, floats are compared by their mean size and mean, the rest bit for bit. Biases of
attention keys are compared on the recording's machine only: softmax cancels their gradient, so that Adam steps on
rounding noise.
"""

import bz2
import hashlib
import json
import os
import platform
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

Entries = dict[str, Any]  # place -> a text, compared everywhere, or [text of this machine, numbers of every machine]
ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden_hashes.json"
_TEXT = (ROOT / "tests" / "golden_inputs.yaml").read_text(encoding="utf-8")
INPUTS = yaml.safe_load(_TEXT.replace("ASSETS", str(ROOT / "data" / "miniature" / "assets")))
VOLATILE = re.compile(r"seconds|commit|pairs_per_second|.*version.*")


def write_inputs(folder: Path) -> None:
    """Raw corpora with their config, a benchmark with features, and the configs of four runs."""
    captions = [
        {"image": f"{n}.jpg", "en": f"a {a} {b} on {c}", "zh": f"{z}上的一只{x}的{y}"}
        for n, ((a, x), (b, y), (c, z)) in enumerate(product(*(each.items() for each in INPUTS["words"])))
    ]
    files = INPUTS["files"] | {f"captions.{key}": "".join(row[key] + "\n" for row in captions) for key in captions[0]}
    shown = [{**row, "zh": [row["zh"], f"第{n}张：{row['zh']}"], "en": [row["en"]]} for n, row in enumerate(captions)]
    files["benchmark.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)
    for name, text in files.items():
        (folder / name).write_bytes(bz2.compress(text.encode()) if name.endswith(".bz2") else text.encode())
    features = np.random.default_rng(0).normal(size=(len(shown), 256)).astype(np.float32)
    np.savez(folder / "features.npz", ids=np.array([row["image"] for row in shown]), features=features)
    configs = {"corpus": INPUTS["config"]}
    configs |= {name: {**INPUTS["run"], "out_dir": name, **run} for name, run in INPUTS["runs"].items()}
    for name, tree in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")


def produce(folder: Path) -> str:
    """Run every command in `folder`: the first as a user does, the second as two processes, the others in one.

    Returns the output of the command that failed, or "".
    """
    write_inputs(folder)
    on_cpu = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **on_cpu, "PYTHONPATH": str(ROOT)}
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    build, two, *others = INPUTS["commands"]
    for words in (shlex.split(INPUTS["commands"][build]), [*torchrun, __file__, two], [__file__, *others]):
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        if done.returncode:
            return f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return ""


def run_here(names: Iterable[str]) -> None:
    """Run commands in this process, as the command line would; a run must have as many processes as it is named for."""
    from accelerate.state import AcceleratorState, PartialState

    torch.set_num_threads(1)
    for name in names:
        sys.path[0], sys.argv = str(ROOT), shlex.split(INPUTS["commands"][name])
        try:
            if sys.argv[0] == "-m":
                runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
        except SystemExit as done:
            if done.code:
                raise
        assert name not in INPUTS["runs"] or PartialState().num_processes == (2 if name == "two" else 1), name
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


def entries(folder: Path) -> Entries:
    """What the commands wrote in `folder`, by path and part."""
    found: Entries = {}
    for top in INPUTS["written"]:
        files = sorted(path for path in [folder / top, *(folder / top).rglob("*")] if path.is_file())
        names = {path.relative_to(folder).as_posix(): path for path in files if "scored" not in path.parts}  # a cache
        found[f"{top}: files"] = " ".join(names)
        for name, path in names.items():
            if path.suffix not in (".md", ".py"):  # prose and code
                found |= {f"{name}: {part}": value for part, value in parts(path, folder).items()}
    return found


def parts(path: Path, folder: Path) -> Entries:
    """What stands in one file, by key, column or tensor."""
    if path.suffix == ".safetensors":
        tensors = dict(sorted(load_file(path).items()))
        shapes = {"names": digest([(name, str(each.dtype), list(each.shape)) for name, each in tensors.items()])}
        alone = {name: [tensor] for name, tensor in tensors.items()}
        groups = alone if path.stem in ("weights", "average") else {"values": [*tensors.values()]}
        return {
            **shapes,
            **{key: floats(*group, bitwise_only=key.endswith("k_proj.bias")) for key, group in groups.items()},
        }
    if path.suffix in (".parquet", ".arrow"):
        table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_stream(path).read_all()
        columns = {each.name: digest([str(each.type), table[each.name].to_pylist()]) for each in table.schema}
        return {"columns": " ".join(columns), **columns}
    text = path.read_text(encoding="utf-8", errors="surrogateescape")  # a sentencepiece.model is bytes
    text = text.replace(str(folder), "FOLDER").replace(str(ROOT), "ROOT")
    if path.suffix == ".jsonl":
        lines = [steady(json.loads(line)) for line in text.splitlines()]
        series = {key: [line[key] for line in lines if key in line] for key in sorted(set().union(*lines))}
        return {key: [digest(numbers), numbers] for key, numbers in series.items()}
    if path.suffix != ".json":
        return {"text": digest(text)}
    value = steady(json.loads(text))
    if not isinstance(value, dict) or len(value) > 40:  # a vocabulary
        return {"json": digest(value)}
    if path.name == "result.json":  # ranks move with the last bit of a feature, and examples with the ranks
        return {key: [digest(each), []] for key, each in value.items()} | {"keys": digest(keys(value))}
    return {key: digest(each) for key, each in value.items()}


def floats(*tensors: torch.Tensor, bitwise_only: bool = False) -> list[Any]:
    """A hash, and the mean of the size and the mean, or no numbers where other machines have nothing to compare."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.contiguous().numpy().tobytes())
    if bitwise_only:
        return [sha.hexdigest()[:16], []]
    whole = torch.cat([tensor.flatten().double() for tensor in tensors])
    return [sha.hexdigest()[:16], [float(f"{each:.6g}") for each in (whole.abs().mean(), whole.mean())]]


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def steady(value: Any) -> Any:  # noqa: ANN401  any JSON
    """`value` without clock, speed, commit and versions."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if not VOLATILE.fullmatch(key)}
    return [steady(each) for each in value] if isinstance(value, list) else value


def keys(value: Any) -> Any:  # noqa: ANN401  any JSON
    """The keys of `value` and of all below it."""
    if isinstance(value, dict):
        return {key: keys(each) for key, each in value.items()}
    return [keys(each) for each in value] if isinstance(value, list) else None


def machine() -> str:
    """What decides the last bits of a sum."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text() if cpu.exists() else ""
    model = re.findall(r"^(?:cpu family|model|model name)\s*: (.*)", text, re.MULTILINE)[:3]  # a name may have several
    libraries = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return ", ".join([libraries, torch.backends.cpu.get_cpu_capability(), platform.machine(), *model])


def same(found: Any, recorded: Any, bitwise: bool) -> bool:  # noqa: ANN401
    """Whether an entry is the recorded one, on the machine of the recording (`bitwise`) or on another."""
    if bitwise or isinstance(found, str) or isinstance(recorded, str):
        return bool(found == recorded)
    far = max((abs(one - other) for one, other in zip(found[1], recorded[1], strict=True)), default=0)
    return far <= 1e-3 * max(map(abs, recorded[1]), default=0) + 1e-7  # a term of 1e-6 is half rounding


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Entries | str:
    """What the commands wrote, or the output of the one that failed."""
    folder = tmp_path_factory.mktemp("golden")
    return produce(folder) or entries(folder)


@pytest.mark.timeout(900)
def test_every_command_succeeds(written: Entries | str) -> None:
    if isinstance(written, str):
        pytest.fail(written, pytrace=False)


@pytest.mark.parametrize("top", INPUTS["written"])
def test_what_was_recorded_is_written(top: str, written: Entries | str) -> None:
    if isinstance(written, str):
        pytest.fail("a command failed: see test_every_command_succeeds", pytrace=False)
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    bitwise = recorded.pop("machine") == machine()
    mine = (f"{top}:", f"{top}/")
    found, wanted = ({k: v for k, v in each.items() if k.startswith(mine)} for each in (written, recorded))
    assert list(found) == list(wanted)
    assert [key for key in wanted if not same(found[key], wanted[key], bitwise)] == []


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        if failure := produce(folder := Path(tempfile.mkdtemp())):
            sys.exit(failure)
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in {"machine": machine(), **entries(folder)}.items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        print(f"{GOLDEN}: {len(lines)} entries of what lies in {folder}")
    else:
        run_here(sys.argv[1:])
