"""Write the geometry of a UNet's cross-attentions: `python -m distill.unet_geometry --unet ID_OR_DIR --out FILE`.

The losses kv_metric and readout need no UNet pass while training: its key and value maps are fixed, and its queries are
collected here once, while it denoises prompts of the teacher with guidance.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from jsonargparse import ArgumentParser
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import atomic_file, check_writable
from distill.geometry import (
    FORMAT,
    GEOMETRY_PROMPTS,
    CrossAttention,
    Geometry,
    GeometryPrompts,
    attend,
    kv_quadratic_form,
    pair_prompts,
    share_between,
    single_prompts,
)
from distill.loading import load_pretrained_model
from distill.single_file import unpacked


def main(arguments: list[str] | None = None) -> None:
    """Compute the geometry of a UNet and write it atomically."""
    parser = ArgumentParser(prog="python -m distill.unet_geometry", exit_on_error=False, description=__doc__)
    parser.add_argument("--unet", type=str, required=True, help="folder or Hub id of a pipeline, or of a UNet alone")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--teacher", type=str | None, help="text encoder, of SDXL a pipeline; by default --unet's")
    parser.add_argument("--queries", type=int, default=512, help="queries stored for each cross-attention")
    parser.add_argument("--steps", type=int, default=10, help="of denoising (DDIM), from noise to a picture")
    parser.add_argument("--guidance", type=float, default=7.5, help="scale of the guidance")
    parser.add_argument("--columns", type=str | None, help="START:STOP, one encoder's share of the width (SDXL: 0:768)")
    parser.add_argument("--seed", type=int, default=0, help="of the latents and of the choice of queries")
    args = parser.parse_args(arguments)
    if args.queries < 1 or args.steps < 1:
        raise UserError("--queries and --steps: at least one of each")
    check_writable(args.out)
    args.unet = unpacked(args.unet, "--unet")
    unet = load_unet(args.unet)
    if args.columns is not None:
        part = metric_of_columns(unet, args.columns)
        write_geometry(part, args.out, {"unet": args.unet, "columns": args.columns})
        print(f"{args.out}: the metric of the columns {args.columns}; it serves losses.kv_metric")
        return
    kind, name = encoder_kind(unet, args.unet), args.teacher or args.unet
    try:
        prompts = pair_prompts(name, unet) if kind else single_prompts(name)
    except UserError as error:
        what = "the pipeline of its two text encoders" if kind else "its text encoder"
        raise error if args.teacher else UserError(f"{error}; name {what} with --teacher") from error
    scheduler = load_scheduler(args.unet, args.steps)
    collected = collect_geometry(unet, prompts, scheduler, args.guidance, args.queries, args.seed)
    source = {"unet": args.unet, "teacher": args.teacher or args.unet, "seed": args.seed, "steps": args.steps}
    write_geometry(collected, args.out, {**source, "guidance": args.guidance, "prompts": GEOMETRY_PROMPTS})
    described = f"{len(collected.layers)} cross-attentions of width {collected.width}"
    print(f"{args.out}: {described}, {len(collected.layers[0].query)} queries each")
    shares = collected.shares
    print(
        f"of what they read, {shares.mean():.1%} differs between prompts (least {shares.min():.1%}, most "
        f"{shares.max():.1%} of a cross-attention); losses.readout is relative to it"
    )


def load_unet(name: str) -> nn.Module:
    """The UNet of a pipeline's or its own folder, or Hub id, float32."""
    folder = Path(name).expanduser()
    subfolder = "" if folder.is_dir() and not (folder / "unet").is_dir() else "unet"
    unet: nn.Module = load_pretrained_model(
        UNet2DConditionModel, name, "--unet", "UNet2DConditionModel", subfolder=subfolder, torch_dtype=torch.float32
    )
    return unet.eval().requires_grad_(False)


def load_scheduler(name: str, steps: int) -> Any:  # noqa: ANN401  # diffusers has no types
    """DDIM over `steps` with the noise of the pipeline `name`, of Stable Diffusion 1.x for a UNet alone."""
    known = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    kind: Any = DDIMScheduler
    try:
        scheduler = kind.from_pretrained(Path(name).expanduser(), subfolder="scheduler")
    except OSError:
        scheduler = kind(**known, set_alpha_to_one=False, steps_offset=1)
        print(f"--unet: {name!r} has no scheduler; its noise is taken for that of Stable Diffusion 1.x")
    scheduler.set_timesteps(steps)
    return scheduler


def encoder_kind(unet: Any, name: str) -> Literal["", "text_time"]:  # noqa: ANN401  # diffusers has no types
    """What the UNet reads besides states: nothing, or as SDXL's the pooled state and time ids; UserError for others."""
    kind: str | None = unet.config.addition_embed_type
    if kind is not None and kind != "text_time":
        raise UserError(
            f"--unet: {name!r} needs more than a prompt's states ({kind}); for the metric of one of its encoders give "
            "--columns"
        )
    return "text_time" if kind else ""


def metric_of_columns(unet: nn.Module, columns: str) -> Geometry:
    """The quadratic form of the keys and values on one encoder's columns of the states; no queries.

    For a UNet that cannot be run here; one of an SDXL pipeline can, and its file serves the losses of both encoders.
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
def collect_geometry(
    unet: nn.Module,
    prompts: GeometryPrompts,
    scheduler: Any,  # noqa: ANN401
    guidance: float,
    num_queries: int,
    seed: int,
) -> Geometry:
    """The key and value maps of `unet`, and `num_queries` of its queries, in random order.

    `prompts` are GEOMETRY_PROMPTS, the empty one first. Each of the others is
    denoised from noise of its own; queries are sampled from all passes, with prompt and without.
    """
    modules = cross_attentions(unet)
    width = next(iter(modules.values())).to_k.in_features
    if prompts.states.shape[2] != width:
        raise UserError(f"--teacher: its states are {prompts.states.shape[2]} wide, the UNet reads {width}")
    generator = torch.Generator().manual_seed(seed)
    passes = (len(prompts.states) - 1) * len(scheduler.timesteps)
    with _sampling_queries(modules, 1 + num_queries // passes, seed + 1) as queries_by_layer:
        for row in tqdm(range(1, len(prompts.states)), desc="queries", unit=" prompts", leave=False):
            denoise(unet, prompts.rows([0, row]), scheduler, guidance, generator)
    layers = []
    for name, module in modules.items():
        queries = torch.cat(queries_by_layer[name])
        sample = queries[torch.randperm(len(queries), generator=generator)[:num_queries]]
        key, value = module.to_k.weight.detach(), module.to_v.weight.detach()
        layer = CrossAttention(name, module.heads, module.scale, sample, key, value)
        layers.append(replace(layer, share=share_between(attend(layer, prompts.states))))
    metric = kv_quadratic_form([weight for layer in layers for weight in (layer.key, layer.value)])
    return Geometry(metric, tuple(layers), prompts.widths)


def denoise(
    unet: nn.Module,
    both: GeometryPrompts,
    scheduler: Any,  # noqa: ANN401
    guidance: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """The latent [1, channels, height, width] that `unet` makes of noise; `both` are the empty and a prompt."""
    config: Any = unet.config
    size = config.sample_size
    latent = torch.randn(1, config.in_channels, *((size, size) if isinstance(size, int) else size), generator=generator)
    for timestep in scheduler.timesteps:
        noisy = latent.expand(2, -1, -1, -1)
        noise = unet(noisy, timestep, encoder_hidden_states=both.states, added_cond_kwargs=both.added).sample
        empty, prompt = noise.chunk(2)
        latent = scheduler.step(empty + guidance * (prompt - empty), timestep, latent).prev_sample
    return latent


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
def _sampling_queries(modules: dict[str, Any], count: int, seed: int) -> Iterator[dict[str, list[torch.Tensor]]]:
    """While open, keeps `count` random queries [count, inner] of each pass of every module by its name."""
    queries_by_layer: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    generator = torch.Generator().manual_seed(seed)

    def keep(name: str, query: torch.Tensor) -> None:
        rows = query.flatten(0, -2)
        queries_by_layer[name].append(rows[torch.randperm(len(rows), generator=generator)[:count]])

    hooks = [
        module.to_q.register_forward_hook(lambda _module, _inputs, query, name=name: keep(name, query))
        for name, module in modules.items()
    ]
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
    layers = [
        {"name": layer.name, "heads": layer.heads, "scale": layer.scale, "share": layer.share}
        for layer in geometry.layers
    ]
    metadata = {"format": FORMAT, "layers": json.dumps(layers), "source": json.dumps(source)}
    if geometry.widths:
        metadata["widths"] = json.dumps(geometry.widths)
    with atomic_file(path) as partial:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, partial, metadata)


if __name__ == "__main__":
    run_cli(main)
