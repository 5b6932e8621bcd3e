"""Several ranks as one: experts spread over them, everything else sharded with FSDP2.

Each rank reads its own part of a batch. Dense parameters are gathered layer by layer and their
gradients added up and scattered (`fully_shard`); a rank's experts see the tokens of all ranks, sent
by all-to-all, so their gradients are whole where they are made. Every loss must be divided by the
tokens of *all* ranks. No tensor or pipeline parallelism; `loop.train` does not use this module yet,
and checkpoints are written by one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ...kernels.grouped_experts import grouped_experts
from ..model import Model, SparseMoe


def parallelise(model: Model, mesh: DeviceMesh) -> None:
    """Spread `model`, the same on every rank, over the one dimension of `mesh`; in place.

    Afterwards a rank holds its share of the experts as plain parameters and of all else as shards.

    Raises:
        ValueError: the experts cannot be shared out evenly.
    """
    ranks, rank = mesh.size(), mesh.get_local_rank()
    experts = model.config.num_local_experts
    if experts % ranks:
        raise ValueError(
            f"expected experts in equal shares, got {experts} for {ranks} ranks; "
            "choose a number of ranks that divides them"
        )
    share = experts // ranks
    own: set[nn.Parameter] = set()
    for layer in model.model.decoder_layers():
        moe = layer.block_sparse_moe
        for name in ("gate_up_proj", "down_proj"):
            whole = getattr(moe.experts, name)
            part = whole.detach()[rank * share : (rank + 1) * share].clone()
            setattr(moe.experts, name, nn.Parameter(part))
            own.add(getattr(moe.experts, name))
        moe.apply_experts = _SpreadExperts(moe, mesh)
    for each in (*model.model.decoder_layers(), model):
        fully_shard(each, mesh=mesh, ignored_params=own)
        _add_up(each)


def clip_gradients(model: nn.Module, mesh: DeviceMesh, limit: float) -> float:
    """Scale all ranks' gradients to a common norm of at most `limit`; returns the norm before."""
    grads = [_local(param.grad) for param in model.parameters() if param.grad is not None]
    squares = torch.stack([grad.float().square().sum() for grad in grads]).sum()
    dist.all_reduce(squares, group=mesh.get_group())
    norm = float(squares.sqrt())
    for grad in grads:
        grad.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


def total_load(model: Model, mesh: DeviceMesh) -> torch.Tensor:
    """`Model.expert_load` over all ranks, [layers, experts]."""
    load = model.expert_load()
    dist.all_reduce(load, group=mesh.get_group())
    return load


class _SpreadExperts:
    """Sends each token to the ranks of its experts and adds up what comes back."""

    def __init__(self, moe: SparseMoe, mesh: DeviceMesh) -> None:
        self._moe = moe
        self._group = mesh.get_group()
        self._ranks = mesh.size()
        self._share = moe.experts.gate_up_proj.shape[0]
        self._first = mesh.get_local_rank() * self._share

    def __call__(
        self, x: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """As `grouped_experts` with all experts at hand."""
        chosen, order = experts.flatten().sort(stable=True)  # [N * K]
        tokens = order // experts.shape[1]
        sent = torch.bincount(chosen // self._share, minlength=self._ranks)
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent, group=self._group)
        sizes = (sent.tolist(), got.tolist())
        arrived = _exchange(x[tokens], *sizes, self._group)
        local = chosen.new_empty(len(arrived))
        dist.all_to_all_single(local, chosen, sizes[1], sizes[0], group=self._group)
        y = grouped_experts(
            arrived,
            (local - self._first)[:, None],
            arrived.new_ones(len(arrived), 1),
            self._moe.experts.gate_up_proj,
            self._moe.experts.down_proj,
        )
        back = _exchange(y, sizes[1], sizes[0], self._group)
        scaled = back * weights.flatten()[order, None].to(back.dtype)
        return torch.zeros_like(x).index_add(0, tokens, scaled)


def _exchange(rows: torch.Tensor, sent: list[int], got: list[int], group: Any) -> torch.Tensor:
    """Rows to their ranks, with a gradient that travels back."""
    return _Exchange.apply(rows, sent, got, group)  # type: ignore[no-any-return, no-untyped-call]


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, sent: list[int], got: list[int], group: Any
    ) -> torch.Tensor:
        ctx.sizes, ctx.group = (sent, got), group
        out = rows.new_empty(sum(got), rows.shape[1])
        dist.all_to_all_single(out, rows.contiguous(), got, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        sent, got = ctx.sizes
        out = grad.new_empty(sum(sent), grad.shape[1])
        dist.all_to_all_single(out, grad.contiguous(), sent, got, group=ctx.group)
        return out, None, None, None


def _add_up(module: nn.Module) -> None:
    """Sum gradients over ranks; FSDP would average them."""
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it reduces


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
