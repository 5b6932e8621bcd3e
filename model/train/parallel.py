"""Several ranks as one: experts spread over them, everything else sharded with FSDP2.

Each rank reads its own part of a batch. Dense parameters are gathered layer by layer and their
gradients added up and scattered (`fully_shard`); a rank's experts see the tokens of all ranks, sent
by all-to-all, so their gradients are whole where they are made. Every loss must be divided by the
tokens of *all* ranks. `Ranks` tells the training loop its place among them. No tensor or pipeline
parallelism; whole weights are put together on every rank to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from ...kernels.grouped_experts import grouped_experts
from ..model import Model, SparseMoe
from ..mtp import MtpModules

T = TypeVar("T")


def parallelise(
    model: Model,
    mesh: DeviceMesh,
    dtype: torch.dtype = torch.float32,
    *,
    head_dtype: torch.dtype | None = None,
    mtp: MtpModules | None = None,
) -> None:
    """Spread `model`, the same on every rank, over the one dimension of `mesh`; in place.

    Afterwards a rank holds its share of the experts as plain parameters and of all else as shards.

    Args:
        dtype: what the model computes in; its parameters stay fp32, and so do their gradients.
        head_dtype: what the output head computes in; None = as the rest.
        mtp: modules of the model to spread with it.

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
    modules = mtp.modules_by_depth() if mtp else []
    for layer in (*model.model.decoder_layers(), *(each.block for each in modules)):
        moe = layer.block_sparse_moe
        for name in ("gate_up_proj", "down_proj"):
            whole = getattr(moe.experts, name)
            part = whole.detach()[rank * share : (rank + 1) * share].clone()
            setattr(moe.experts, name, nn.Parameter(part))
            own.add(getattr(moe.experts, name))
        moe.apply_experts = _SpreadExperts(moe, mesh)
    parts = (*model.model.decoder_layers(), model.lm_head, model, *modules)
    for each in parts:
        used = head_dtype if each is model.lm_head and head_dtype else dtype
        policy = MixedPrecisionPolicy(param_dtype=used, reduce_dtype=torch.float32)
        # The head is used once a depth, and the root by all: they stay whole until the gradient.
        kept = each in (model, model.lm_head)
        fully_shard(
            each,
            mesh=mesh,
            ignored_params=own,
            mp_policy=policy,
            reshard_after_forward=not kept,
        )
        _add_up(each)
    # Losses call these instead of `forward`.
    register_fsdp_forward_method(model, "hidden")
    register_fsdp_forward_method(model.lm_head, "summed_loss")


class Ranks:
    """This process among those that train one model: what is its part and what is the whole.

    Without a mesh it is alone, and every part is the whole.
    """

    def __init__(self, mesh: DeviceMesh | None = None) -> None:
        self._mesh = mesh
        self._count = mesh.size() if mesh else 1
        self._rank = mesh.get_local_rank() if mesh else 0

    @property
    def alone(self) -> bool:
        """No other process takes part."""
        return self._mesh is None

    @property
    def first(self) -> bool:
        """This process writes the files."""
        return self._rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every so-manieth item; together the ranks have each once."""
        return items[self._rank :: self._count]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Over all ranks."""
        if self._mesh:
            tensor = tensor.clone()
            dist.all_reduce(tensor, group=self._mesh.get_group())
        return tensor

    def agree(self, value: T) -> T:
        """What the first rank says."""
        told = [value]
        if self._mesh:
            dist.broadcast_object_list(told, group=self._mesh.get_group(), group_src=0)
        return told[0]

    def whole(self, part: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
        """All ranks' parts of a tensor that lies as `param` does, together."""
        if self._mesh is None:
            return part
        if isinstance(param, DTensor):
            laid = (param.device_mesh, param.placements)
            return DTensor.from_local(
                part, *laid, run_check=False, shape=param.shape, stride=param.stride()
            ).full_tensor()
        parts = [torch.empty_like(part) for _ in range(self._count)]
        dist.all_gather(parts, part.contiguous(), group=self._mesh.get_group())
        return torch.cat(parts)

    def part(self, whole: torch.Tensor, param: torch.Tensor) -> torch.Tensor:
        """This rank's part of `whole`, so that it lies as `param` does."""
        if self._mesh is None:
            return whole
        if isinstance(param, DTensor):
            return distribute_tensor(whole, param.device_mesh, param.placements).to_local()
        return whole.chunk(self._count)[self._rank]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


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
            self._moe.experts.gate_up_proj.to(x.dtype),
            self._moe.experts.down_proj.to(x.dtype),
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
