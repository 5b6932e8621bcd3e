"""Reads and writes a model folder: `config.json` and safetensors under the published names.

Any number of `model*.safetensors` files is read, one is written. FP8 blocks are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config import ModelConfig
from .model import Model

# Stacked in memory -> one tensor an expert on disk.
_STACKED = re.compile(r"(.*\.block_sparse_moe\.experts)\.(gate_up_proj|down_proj)")
_BIAS = "e_score_correction_bias"


class CheckpointError(ValueError):
    """The folder does not hold the weights of this model; says which tensor and why."""


def save_checkpoint(model: Model, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `model.safetensors`; readers never see half a file.

    Args:
        dtype: of the weights on disk; None = as they are. The router's bias stays fp32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach()
        .to("cpu", torch.float32 if name.endswith(_BIAS) else dtype)
        .clone(memory_format=torch.contiguous_format)
        for name, tensor in _published(model)
    }
    weights, config = folder / "model.safetensors", folder / "config.json"
    save_file(tensors, _partial(weights), metadata={"format": "pt"})
    _partial(weights).replace(weights)
    model.config.save(_partial(config))
    _partial(config).replace(config)


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    """The model of a folder, its parameters in `dtype`.

    Raises:
        CheckpointError: the weights do not fit the config; see `load_weights`.
        ValueError: the config is unusable.
        FileNotFoundError: there is no config.
    """
    model = Model(ModelConfig.load(folder))
    load_weights(model, folder)
    for param in model.parameters():
        param.data = param.data.to(dtype)
    return model


def load_weights(model: Model, folder: Path) -> None:
    """Copy the weights of a folder into `model`, cast to its types.

    Raises:
        CheckpointError: a tensor is missing, unknown, misshapen, quantised or not finite, or a
            file is damaged. What was read before it stays in the model.
    """
    files = _index(folder)
    targets = dict(_published(model))
    if missing := sorted(targets.keys() - files.keys()):
        raise CheckpointError(
            f"expected {missing[0]} in {folder}, found no such tensor ({len(missing)} missing); "
            "check that weights and config.json belong together"
        )
    if unknown := sorted(files.keys() - targets.keys()):
        raise CheckpointError(
            f"the model has no {unknown[0]}, found in {files[unknown[0]]} ({len(unknown)} unknown "
            "tensors); check that weights and config.json belong together"
        )
    for file in sorted(set(files.values())):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a dict)
                _copy(opened.get_tensor(name), targets[name], f"{name} in {file}")


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


def _published(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor under its published name; stacked experts as views."""
    for name, tensor in model.state_dict().items():
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


def _index(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(f"expected model.safetensors in {folder}, found none")
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
            f"expected fp32, fp16 or bf16 weights, got {source.dtype} for {where}; dequantise first"
        )
    if source.shape != target.shape:
        raise CheckpointError(
            f"expected shape {list(target.shape)} by the config, got {list(source.shape)} "
            f"for {where}"
        )
    if not source.isfinite().all():
        raise CheckpointError(f"expected finite weights, got NaN or infinity in {where}")
    target.copy_(source)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
