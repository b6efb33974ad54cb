"""Write the geometry of a UNet's cross-attentions: `python -m distill.unet_geometry --unet ID_OR_DIR --out FILE`.

The losses kv_metric and readout need no UNet pass while training: its key and value maps are fixed, and its queries are
collected here once, on random latents, prompts of the teacher and several timesteps.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jsonargparse import ArgumentParser
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import CLIPTextModel

from data.cli import UserError, run_cli
from data.files import atomic_file
from distill.geometry import FORMAT, CrossAttention, Geometry, kv_quadratic_form
from distill.loading import load_any_tokenizer, load_pretrained_model

GEOMETRY_PROMPTS = (
    "",
    "a photo of a cat",
    "a red helicopter taking off over snowy mountains",
    "portrait of a girl with long hair, masterpiece, best quality",
    "two men playing football on the grass",
    "cyberpunk city at night, neon lights, rain, highly detailed, 8k",
    "an old fisherman alone in a boat on a cold river, ink painting",
    "low quality, blurry, bad hands",
)
"""The empty prompt, captions and prompts as people write them; an export's golden prompts are others."""


def main(arguments: list[str] | None = None) -> None:
    """Compute the geometry of a UNet and write it atomically."""
    parser = ArgumentParser(prog="python -m distill.unet_geometry", exit_on_error=False, description=__doc__)
    parser.add_argument("--unet", type=str, required=True, help="folder or Hub id of a pipeline, or of a UNet alone")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--teacher", type=str | None, help="the UNet's text encoder; by default the pipeline's own")
    parser.add_argument("--queries", type=int, default=64, help="queries stored for each cross-attention")
    parser.add_argument("--timesteps", type=list[int], default=[1, 250, 500, 750, 999], help="where they are collected")
    parser.add_argument("--columns", type=str | None, help="START:STOP, one encoder's share of the width (SDXL: 0:768)")
    parser.add_argument("--seed", type=int, default=0, help="of the latents and of the choice of queries")
    args = parser.parse_args(arguments)
    if args.queries < 1 or not args.timesteps:
        raise UserError("--queries and --timesteps: at least one of each")
    if not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: no folder {args.out.parent}; make it first")
    unet = load_unet(args.unet)
    if args.columns is not None:
        part = metric_of_columns(unet, args.columns)
        write_geometry(part, args.out, {"unet": args.unet, "columns": args.columns})
        print(f"{args.out}: the metric of the columns {args.columns}; it serves losses.kv_metric")
        return
    check_single_encoder(unet, args.unet)
    try:
        states = teacher_states(args.teacher or args.unet, "--teacher")
    except UserError as error:
        raise error if args.teacher else UserError(f"{error}; name its text encoder with --teacher") from error
    collected = collect_geometry(unet, states, args.timesteps, args.queries, args.seed)
    source = {"unet": args.unet, "teacher": args.teacher or args.unet, "seed": args.seed}
    write_geometry(collected, args.out, {**source, "timesteps": args.timesteps, "prompts": GEOMETRY_PROMPTS})
    described = f"{len(collected.layers)} cross-attentions of width {collected.width}"
    print(f"{args.out}: {described}, {args.queries} queries each")


def load_unet(name: str) -> nn.Module:
    """The UNet of a pipeline's or its own folder, or Hub id, float32."""
    folder = Path(name).expanduser()
    subfolder = "" if folder.is_dir() and not (folder / "unet").is_dir() else "unet"
    unet: nn.Module = load_pretrained_model(
        UNet2DConditionModel, name, "--unet", "UNet2DConditionModel", subfolder=subfolder, torch_dtype=torch.float32
    )
    return unet.eval().requires_grad_(False)


def check_single_encoder(unet: Any, name: str) -> None:  # noqa: ANN401  # diffusers has no types
    """Raise UserError for a UNet that cannot be run on a prompt's states alone: SDXL's."""
    if unet.config.addition_embed_type is not None:
        raise UserError(
            f"--unet: {name!r} needs more than a prompt's states ({unet.config.addition_embed_type}); "
            "for the metric of one of its encoders give --columns"
        )


def metric_of_columns(unet: nn.Module, columns: str) -> Geometry:
    """The quadratic form of the keys and values on one encoder's columns of the states; no queries.

    SDXL's attention depends on both encoders at once, so each has a metric, and neither a read-out.
    """
    weights = [
        linear.weight.detach() for module in cross_attentions(unet).values() for linear in (module.to_k, module.to_v)
    ]
    width = weights[0].shape[1]
    bounds = re.fullmatch(r"(\d+):(\d+)", columns)
    if bounds is None or not 0 <= int(bounds[1]) < int(bounds[2]) <= width:
        raise UserError(f"--columns {columns!r}: give START:STOP within the width {width} that the UNet reads")
    return Geometry(kv_quadratic_form([weight[:, int(bounds[1]) : int(bounds[2])] for weight in weights]), ())


@torch.no_grad()
def teacher_states(name: str, option: str) -> torch.Tensor:
    """States [prompts, length, width] of GEOMETRY_PROMPTS by the text encoder of a pipeline, or of its own folder."""
    model = load_pretrained_model(CLIPTextModel, name, option, "CLIP text encoder", dtype=torch.float32).eval()
    length = model.config.max_position_embeddings
    ids = load_any_tokenizer(name, option)(
        list(GEOMETRY_PROMPTS), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    states: torch.Tensor = model(input_ids=ids.input_ids).last_hidden_state
    return states


@torch.no_grad()
def collect_geometry(
    unet: nn.Module, states: torch.Tensor, timesteps: Sequence[int], num_queries: int, seed: int
) -> Geometry:
    """The key and value maps of `unet`, and `num_queries` of its queries for `states` [prompts, length, width].

    Each timestep has every prompt with a latent of its own; queries are sampled from all of a cross-attention.
    """
    modules = cross_attentions(unet)
    width = next(iter(modules.values())).to_k.in_features
    if states.shape[2] != width:
        raise UserError(f"--teacher: its states are {states.shape[2]} wide, the UNet reads {width}")
    generator = torch.Generator().manual_seed(seed)
    config: Any = unet.config
    size = config.sample_size
    shape = (config.in_channels, *((size, size) if isinstance(size, int) else size))
    with _recording_queries(modules) as queries_by_layer:
        for timestep in tqdm(timesteps, desc="queries", unit=" timesteps", leave=False):
            for row in states:  # one by one: a full-size UNet's activations are large
                latent = torch.randn(1, *shape, generator=generator)
                unet(latent, timestep, encoder_hidden_states=row[None])
    layers = []
    for name, module in modules.items():
        queries = torch.cat(queries_by_layer[name])
        sample = torch.randperm(len(queries), generator=generator)[:num_queries]
        key, value = module.to_k.weight, module.to_v.weight
        layers.append(CrossAttention(name, module.heads, module.scale, queries[sample], key.detach(), value.detach()))
    metric = kv_quadratic_form([weight for layer in layers for weight in (layer.key, layer.value)])
    return Geometry(metric, tuple(layers))


def cross_attentions(unet: nn.Module) -> dict[str, Any]:
    """The UNet's attentions to the prompt, by name, in the order of its modules."""
    attentions = {name: module for name, module in unet.named_modules() if name.endswith(".attn2")}
    if not attentions:
        raise UserError("--unet: it has no cross-attention (no module attn2)")
    for name, module in attentions.items():
        if module.norm_q is not None or module.norm_cross is not None or module.to_k.bias is not None:
            raise UserError(f"--unet: {name} normalises its queries or keys, or adds a bias; that is not known here")
    return attentions


@contextmanager
def _recording_queries(modules: dict[str, Any]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """While open, records the queries [tokens, inner] of every module by its name."""
    queries_by_layer: dict[str, list[torch.Tensor]] = {name: [] for name in modules}

    def keep(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        return lambda _module, _inputs, query: queries_by_layer[name].append(query.flatten(0, -2).clone())

    hooks = [module.to_q.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield queries_by_layer
    finally:
        for hook in hooks:
            hook.remove()


def write_geometry(geometry: Geometry, path: Path, source: dict[str, Any]) -> None:
    """Write `geometry` as safetensors with `source` in its metadata, atomically."""
    tensors = {"metric": geometry.metric}
    for i, layer in enumerate(geometry.layers):
        tensors.update({f"{i}.query": layer.query, f"{i}.key": layer.key, f"{i}.value": layer.value})
    layers = [{"name": layer.name, "heads": layer.heads, "scale": layer.scale} for layer in geometry.layers]
    metadata = {"format": FORMAT, "layers": json.dumps(layers), "source": json.dumps(source)}
    with atomic_file(path) as partial:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)


if __name__ == "__main__":
    run_cli(main)
