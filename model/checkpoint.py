"""Reads and writes a model folder: `config.json` and safetensors under the published names.

Weights may lie in one file or in shards with an index, in fp32, bf16, fp16 or M2's FP8 blocks. MTP
modules stand apart in `mtp.safetensors`, so that the rest is exactly what `transformers` expects.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from . import fp8
from .config import ModelConfig
from .model import Model
from .mtp import MtpModules

# Stacked in memory -> one tensor an expert on disk.
_STACKED = re.compile(r"(.*\.block_sparse_moe\.experts)\.(gate_up_proj|down_proj)")
_BIAS = "e_score_correction_bias"
_MTP = "mtp.safetensors"
_INDEX = "model.safetensors.index.json"


class CheckpointError(ValueError):
    """The folder does not hold the weights of this model; says which tensor and why."""


def save_checkpoint(
    model: Model,
    folder: Path,
    dtype: torch.dtype | None = None,
    *,
    mtp: MtpModules | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Write config and weights; each file is replaced whole, the config last.

    Args:
        dtype: of the weights on disk; None = as they are. `float8_e4m3fn` writes projections and
            experts in FP8 blocks and the rest in bf16. The router's bias stays fp32.
        mtp: modules that belong to the model; None = none, and those of an older save go.
        shard_bytes: largest file, unless one tensor is larger; None = one file.
    """
    modules = mtp.config.num_mtp_modules if mtp else 0
    folder.mkdir(parents=True, exist_ok=True)
    stale = {*folder.glob("model*.safetensors"), folder / _INDEX, folder / _MTP}
    written = _save_shards(_stored(model, dtype), folder, shard_bytes)
    if mtp:
        _save(dict(_stored(mtp, dtype)), folder / _MTP)
        written.add(folder / _MTP)
    extra: dict[str, Any] = {"num_mtp_modules": modules, "use_mtp": modules > 0}
    if dtype == fp8.FP8:
        extra["quantization_config"] = dict(fp8.CONFIG)
    config = json.loads(model.config.to_json()) | extra
    _write(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in stale - written:
        file.unlink(missing_ok=True)


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    """The model of a folder, its parameters in `dtype`.

    Memory: the model and the shard being read, whatever their number.

    Raises:
        CheckpointError: the weights do not fit the config; see `load_weights`.
        ValueError: the config is unusable.
        FileNotFoundError: there is no config.
    """
    config = ModelConfig.load(folder)
    with torch.device("meta"):
        model = Model(config)
    _materialise(model, dtype)
    load_weights(model, folder)
    return model


def load_mtp(folder: Path, dtype: torch.dtype = torch.float32) -> MtpModules | None:
    """The MTP modules of a folder; None = it has none, as all published ones.

    Raises:
        CheckpointError: the file does not fit the config.
    """
    file = folder / _MTP
    if not file.exists():
        return None
    with torch.device("meta"):
        modules = MtpModules(ModelConfig.load(folder))
    _materialise(modules, dtype)
    load_mtp_weights(modules, folder)
    return modules


def load_mtp_weights(modules: MtpModules, folder: Path) -> None:
    """Copy the weights of a folder's MTP modules into `modules`.

    Raises:
        CheckpointError: there are none, or they do not fit; see `load_weights`.
    """
    file = folder / _MTP
    if not file.exists():
        raise CheckpointError(f"expected MTP modules in {file}, found none; copy it again")
    _fill(modules, _index([file]), folder)


def load_weights(model: Model, folder: Path) -> None:
    """Copy the weights of a folder into `model`, dequantised and cast to its types.

    Raises:
        CheckpointError: a tensor is missing, unknown, misshapen or not finite, an FP8 tensor has
            no fitting scales or another one has some, a shard is missing, or a file is damaged.
            What was read before it stays in the model.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if (folder / _INDEX).exists():
        files = _listed(folder)
    if not files:
        raise CheckpointError(f"expected model.safetensors in {folder}, found none")
    _fill(model, _index(files), folder)


def load_bundled(dtype: torch.dtype = torch.float32) -> Model:
    """The small policy that ships with the package.

    Raises:
        CheckpointError: the installation lacks it.
    """
    with resources.as_file(resources.files(__package__) / "bundled") as folder:
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"expected the bundled policy in {folder}, found none; reinstall the package"
            )
        return load_model(folder, dtype)


def _materialise(module: nn.Module, dtype: torch.dtype) -> None:
    """Give a module on the meta device memory: parameters in `dtype`, buffers as they are."""
    for param in module.parameters():
        param.data = param.data.to(dtype)
    module.to_empty(device="cpu")


def _fill(module: nn.Module, files: Mapping[str, Path], folder: Path) -> None:
    """Copy each tensor of `files` to its place, file by file."""
    targets = dict(_published(module))
    scales = {name for name in files if name.removesuffix(fp8.SCALE_SUFFIX) in targets} - set(
        targets
    )
    if missing := sorted(targets.keys() - files.keys()):
        raise CheckpointError(
            f"expected {missing[0]} in {folder}, found no such tensor ({len(missing)} missing); "
            "check that weights and config.json belong together"
        )
    if unknown := sorted(files.keys() - targets.keys() - scales):
        raise CheckpointError(
            f"the model has no {unknown[0]}, found in {files[unknown[0]]} ({len(unknown)} unknown "
            "tensors); check that weights and config.json belong together"
        )
    for file in sorted(set(files.values())):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a dict)
                if name in targets:
                    where = f"{name} in {file}"
                    weight = opened.get_tensor(name)
                    if weight.dtype == fp8.FP8:
                        weight = _dequantised(weight, name + fp8.SCALE_SUFFIX, files, where)
                    elif (scale := name + fp8.SCALE_SUFFIX) in scales:
                        raise CheckpointError(
                            f"expected FP8 weights beside {scale} in {files[scale]}, got "
                            f"{weight.dtype} for {where}; the files belong to two checkpoints"
                        )
                    _copy(weight, targets[name], where)


def _dequantised(
    stored: torch.Tensor, scale_name: str, files: Mapping[str, Path], where: str
) -> torch.Tensor:
    if scale_name not in files:
        raise CheckpointError(
            f"expected {scale_name} beside {where}, found no such tensor; the FP8 weights are "
            "useless without their scales, copy all shards"
        )
    with safe_open(files[scale_name], framework="pt") as opened:
        scale = opened.get_tensor(scale_name)
    if stored.ndim != 2 or scale.shape != fp8.scale_shape(stored.shape):
        raise CheckpointError(
            f"expected one scale a {fp8.BLOCK} x {fp8.BLOCK} block, "
            f"{list(fp8.scale_shape(stored.shape))}, got {list(scale.shape)} for {where}"
        )
    return fp8.dequantise(stored, scale)


def _published(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor under its published name; stacked experts as views."""
    for name, tensor in module.state_dict().items():
        if not (match := _STACKED.fullmatch(name)):
            yield name, tensor
            continue
        prefix, which = match.groups()
        for expert, weight in enumerate(tensor):
            for part, view in _expert_parts(which, weight).items():
                yield f"{prefix}.{expert}.{part}.weight", view


def _expert_parts(which: str, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
    if which == "down_proj":
        return {"w2": weight}
    gate, up = weight.chunk(2)
    return {"w1": gate, "w3": up}


def _stored(module: nn.Module, dtype: torch.dtype | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor as it goes to disk, made one at a time."""
    quantising = dtype == fp8.FP8
    for name, tensor in _published(module):
        if quantising and fp8.is_quantised(name):
            weight, scale = fp8.quantise(tensor.detach().cpu())
            yield name, weight
            yield name + fp8.SCALE_SUFFIX, scale
            continue
        wanted = torch.bfloat16 if quantising else dtype
        kind = torch.float32 if name.endswith(_BIAS) else wanted
        yield (
            name,
            tensor.detach().to("cpu", kind).clone(memory_format=torch.contiguous_format),
        )


def _save_shards(
    tensors: Iterator[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int | None
) -> set[Path]:
    """Write the tensors, holding one shard at a time; returns the files that now count.

    The number of shards stands in their names, so they get them at the end.
    """
    parts: list[tuple[Path, list[str]]] = []
    shard: dict[str, torch.Tensor] = {}
    total = held = 0

    def flush() -> None:
        part = folder / f".part-{len(parts)}.{os.getpid()}.partial"
        save_file(shard, part, metadata={"format": "pt"})
        parts.append((part, list(shard)))
        shard.clear()

    for name, tensor in tensors:
        if shard and shard_bytes is not None and held + tensor.nbytes > shard_bytes:
            flush()
            held = 0
        shard[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(parts) == 1:
        return {parts[0][0].replace(folder / "model.safetensors")}
    places, written = {}, set()
    for number, (part, names) in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        written.add(part.replace(folder / name))
        places.update(dict.fromkeys(names, name))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _write(folder / _INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return written | {folder / _INDEX}


def _listed(folder: Path) -> list[Path]:
    """The shards that the index names."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        files = sorted({folder / Path(name).name for name in index["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"expected a weight_map in {folder / _INDEX}, could not read one ({error!r}); "
            "copy it again"
        ) from error
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"expected {file}, which the index names, found none; copy it")
    return files


def _index(files: list[Path]) -> dict[str, Path]:
    """The file of each tensor."""
    index = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                index.update(dict.fromkeys(opened.keys(), file))
        except SafetensorError as error:
            raise CheckpointError(
                f"expected a whole safetensors file, got a damaged {file} ({error}); copy it again"
            ) from error
    return index


def _copy(source: torch.Tensor, target: torch.Tensor, where: str) -> None:
    if source.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise CheckpointError(
            f"expected fp32, fp16, bf16 or FP8 (e4m3) weights, got {source.dtype} for {where}; "
            "convert them first"
        )
    if source.shape != target.shape:
        raise CheckpointError(
            f"expected shape {list(target.shape)} by the config, got {list(source.shape)} "
            f"for {where}"
        )
    if not source.isfinite().all():
        raise CheckpointError(f"expected finite weights, got NaN or infinity in {where}")
    with torch.no_grad():
        target.copy_(source)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, _partial(path), metadata={"format": "pt"})
    _partial(path).replace(path)


def _write(path: Path, text: str) -> None:
    _partial(path).write_text(text, encoding="utf-8")
    _partial(path).replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
