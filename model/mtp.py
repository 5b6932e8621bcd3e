"""Multi-token prediction: small modules that guess the tokens after the next one.

Module d (1 to K) joins the state of depth d - 1 at position i with the embedding of token i + d,
runs one transformer block and guesses token i + d + 1. Embedding and output head are the main
model's; the main model does not know of the modules. Nothing here samples.

Our choices, because no such weights were published: the state of depth 0 is what the head of the
main model reads (after its last norm), each module has a last norm of its own, and position i keeps
its number at every depth.
Sources: arXiv 2605.26494 section 2.3; DeepSeek-V3 (arXiv 2412.19437) section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..kernels.qk_norm_rotary import rotary_table
from .config import ModelConfig
from .model import Attend, DecoderLayer, Model, PackedAttention, RmsNorm, initialise


class MtpModules(nn.Module):
    """The K modules of a model."""

    def __init__(self, config: ModelConfig) -> None:
        """With random weights.

        Raises:
            ValueError: the config asks for none.
        """
        super().__init__()
        if config.num_mtp_modules == 0:
            raise ValueError("expected num_mtp_modules of 1 to 3, got 0; set it in the config")
        self.config = config
        self.mtp = nn.ModuleList(
            MtpModule(config, depth) for depth in range(1, config.num_mtp_modules + 1)
        )
        initialise(self, config.initializer_range)

    def modules_by_depth(self) -> list[MtpModule]:
        """The modules, typed, depth 1 first."""
        return [each for each in self.mtp if isinstance(each, MtpModule)]

    def hidden(
        self, model: Model, hidden: torch.Tensor, tokens: torch.Tensor, seq_lens: Sequence[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What the head turns into the logits of each depth, for a packed batch.

        Args:
            hidden: [N, hidden], as `Model.hidden` gives it.
            tokens: [N] int64, packed by `seq_lens`.

        Returns:
            For each depth d the states [M, hidden] and rows [M] int64 of the batch: each state
            guesses the token *after* its row, i + d for position i. The last d positions of a
            segment have no token i + d, so M shrinks.
        """
        out = []
        for depth, module in enumerate(self.modules_by_depth(), start=1):
            lengths = [max(0, each - depth + 1) for each in seq_lens]
            kept = _all_but_last(lengths, hidden.device)  # rows of the state of depth d - 1
            starts = _starts(seq_lens, depth, hidden.device)
            positions = _ranges([max(0, each - depth) for each in seq_lens], hidden.device)
            rows = starts + positions + depth  # token i + d
            lengths = [each - depth for each in seq_lens if each > depth]
            hidden = module(
                hidden[kept],
                model.model.embed_tokens(tokens[rows]),
                positions,
                PackedAttention(lengths),
            )
            out.append((hidden, rows))
        return out

    def expert_load(self) -> torch.Tensor:
        """Tokens that the last forward sent to each expert, [modules, experts] int64."""
        return torch.stack([each.block.block_sparse_moe.load for each in self.modules_by_depth()])

    @torch.no_grad()
    def update_router_bias(self, load: torch.Tensor, speed: float) -> None:
        """As `Model.update_router_bias`, for the modules' routers."""
        for module, counts in zip(self.modules_by_depth(), load, strict=True):
            module.block.block_sparse_moe.update_bias(counts, speed)

    def expanded(self, count: int) -> MtpModules:
        """`count` modules: these, then copies of the first, as Figure 2 of the report draws it.

        Raises:
            ValueError: fewer than there are, or more than M2 has.
        """
        have = self.config.num_mtp_modules
        if count < have:
            raise ValueError(f"expected to expand {have} modules to {have} to 3, got {count}")
        grown = MtpModules(replace(self.config, num_mtp_modules=count))
        ours = self.modules_by_depth()
        for index, module in enumerate(grown.modules_by_depth()):
            module.load_state_dict(ours[index if index < have else 0].state_dict())
        return grown.to(next(self.parameters()).dtype)


class MtpModule(nn.Module):
    """Two norms, a projection of both to one stream, one block, a last norm."""

    def __init__(self, config: ModelConfig, depth: int) -> None:
        """`depth` from 1; the block's cache index follows the main model's layers."""
        super().__init__()
        self.config = config
        self.hidden_norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.embed_norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = DecoderLayer(config, config.num_hidden_layers + depth - 1)
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: torch.Tensor,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
    ) -> torch.Tensor:
        """States and embeddings [N, hidden] at positions [N] to states [N, hidden]."""
        joined = torch.cat([self.hidden_norm(hidden), self.embed_norm(embedded)], dim=-1)
        rotation = rotary_table(positions, self.config.rotary_dim, self.config.rope_theta)
        out: torch.Tensor = self.norm(self.block(self.proj(joined), rotation, attend))
        return out


@torch.no_grad()
def mtp_from_trunk(model: Model, count: int) -> MtpModules:
    """Modules whose blocks and last norms are copies of the main model's last ones.

    The text of the report copies from the main model. The projection starts by passing the state
    on: the identity on its half and zero on the embedding's, so a module starts as a deeper trunk.

    Raises:
        ValueError: `count` is not 1 to 3.
    """
    modules = MtpModules(replace(model.config, num_mtp_modules=count))
    last = model.model.decoder_layers()[-1]
    for module in modules.modules_by_depth():
        module.block.load_state_dict(last.state_dict())
        module.norm.load_state_dict(model.model.norm.state_dict())
        module.proj.weight.zero_()
        module.proj.weight[:, : model.config.hidden_size].fill_diagonal_(1.0)
    return modules.to(model.lm_head.weight.dtype)


def _ranges(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """0 to n - 1 for each n."""
    parts = [torch.arange(each, device=device) for each in lengths]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=device)


def _starts(seq_lens: Sequence[int], depth: int, device: torch.device) -> torch.Tensor:
    """First row of its segment, for each position that has a token `depth` further on."""
    lengths = torch.tensor(list(seq_lens), device=device)
    return (lengths.cumsum(0) - lengths).repeat_interleave((lengths - depth).clamp(min=0))


def _all_but_last(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Rows of packed segments without the last row of each."""
    kept = torch.ones(sum(lengths), dtype=torch.bool, device=device)
    ends = torch.tensor(list(lengths), device=device).cumsum(0)
    kept[ends[torch.tensor([each > 0 for each in lengths], device=device)] - 1] = False
    return kept.nonzero().squeeze(1)
