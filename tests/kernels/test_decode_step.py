"""The compiled decode step against its formulas, on ugly shapes and poisoned memory."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rollmill.kernels.decode_step import (
    DecodeRows,
    DecodeWeights,
    JointWeights,
    LayerWeights,
    NativeStep,
    PagedMemory,
    library_problem,
    reference,
)
from rollmill.kernels.qk_norm_rotary import rotary_table

needs_library = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))
SHAPES = {
    # hidden, heads, kv_heads, head_dim, rotary_dim, experts, top_k, inner, vocab
    "round": (64, 4, 2, 32, 16, 8, 2, 48, 96),
    "ugly": (60, 6, 2, 20, 10, 7, 3, 37, 97),
    "odd heads": (33, 3, 3, 7, 2, 5, 5, 19, 41),
    "wide heads": (48, 8, 1, 64, 64, 3, 1, 16, 17),
}
Make = Callable[..., tuple[DecodeWeights, PagedMemory]]


@pytest.fixture
def make() -> Make:
    def build(
        name: str, dtype: torch.dtype, pages: int = 9, joined: bool = False
    ) -> tuple[DecodeWeights, PagedMemory]:
        hidden, heads, kv, dim, rotary, experts, top_k, inner, vocab = SHAPES[name]
        rng = torch.Generator().manual_seed(0)

        def normal(*shape: int, std: float = 0.2) -> torch.Tensor:
            return (torch.randn(shape, generator=rng) * std).to(dtype)

        def layer() -> LayerWeights:
            return LayerWeights(
                norm1=normal(hidden, std=1),
                q=normal(heads * dim, hidden),
                k=normal(kv * dim, hidden),
                v=normal(kv * dim, hidden),
                q_norm=normal(heads * dim, std=1),
                k_norm=normal(kv * dim, std=1),
                o=normal(hidden, heads * dim),
                norm2=normal(hidden, std=1),
                gate=normal(experts, hidden),
                bias=torch.randn(experts, generator=rng) * 0.1,
                gate_up=normal(experts, 2 * inner, hidden),
                down=normal(experts, hidden, inner),
            )

        cos, sin = rotary_table(torch.arange(200), rotary, 1e4)
        weights = DecodeWeights(
            layers=[layer(), layer()],
            embed=normal(vocab, hidden, std=1),
            norm=normal(hidden, std=1),
            head=normal(vocab, hidden),
            cos=cos,
            sin=sin,
            head_dim=dim,
            top_k=top_k,
            eps=1e-6,
            joint=JointWeights(
                state_norm=normal(hidden, std=1),
                embed_norm=normal(hidden, std=1),
                joint=normal(hidden, 2 * hidden),
            )
            if joined
            else None,
        )
        memory = PagedMemory(
            keys=torch.full((2, pages, kv, dim, 16), float("nan"), dtype=dtype),
            values=torch.full((2, pages, kv, 16, dim), float("nan"), dtype=dtype),
            routes=torch.full((pages, 16, 2, top_k), -1, dtype=torch.int16),
        )
        return weights, memory

    return build


def rows(tables: list[list[int]], starts: list[int], counts: list[int]) -> DecodeRows:
    """`counts` tokens of each sequence from `starts` on; all logits wanted."""
    places = [
        (table, start + index)
        for table, start, n in zip(tables, starts, counts, strict=True)
        for index in range(n)
    ]
    return DecodeRows(
        tokens=torch.tensor([(7 * at + table[0]) % 17 for table, at in places]),
        positions=torch.tensor([at for _, at in places], dtype=torch.int32),
        tables=torch.tensor([table for table, _ in places], dtype=torch.int32),
        wanted=torch.arange(len(places), dtype=torch.int32),
    )


FEEDS = [
    rows([[3, 8, 1], [2, 0, 5], [7, 4, 6]], [0, 0, 0], [37, 1, 17]),
    rows([[3, 8, 1], [2, 0, 5], [7, 4, 6]], [37, 1, 17], [1, 15, 3]),
]


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", SHAPES)
def test_it_equals_the_formulas(name: str, dtype: torch.dtype, make: Make) -> None:
    weights, memory = make(name, dtype)
    _, expected_memory = make(name, dtype)
    step = NativeStep(weights, memory)
    close = 1e-4 if dtype == torch.float32 else 3e-2  # stored keys round to bf16 either way
    for feed in FEEDS:
        got = step(feed)
        expected = reference.decode_step(weights, expected_memory, feed)
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=close, atol=close * theirs.std().item())
    assert expected_memory.routes is not None
    assert memory.routes is not None
    assert (memory.routes == expected_memory.routes).float().mean() > 0.99
    torch.testing.assert_close(
        memory.values, expected_memory.values, rtol=0.05, atol=0.05, equal_nan=True
    )


@needs_library
@pytest.mark.parametrize("name", SHAPES)
def test_given_states_are_joined_with_the_embeddings(name: str, make: Make) -> None:
    weights, memory = make(name, torch.float32, joined=True)
    _, expected_memory = make(name, torch.float32)
    step, rng = NativeStep(weights, memory), torch.Generator().manual_seed(1)
    for feed in FEEDS:
        given = torch.randn(len(feed.tokens), SHAPES[name][0], generator=rng)
        rows = replace(feed, given=given)
        expected = reference.decode_step(weights, expected_memory, rows)
        for ours, theirs in zip(step(rows), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.std().item())
    with pytest.raises(ValueError, match="given states with a joint"):
        step(FEEDS[0])


@needs_library
def test_neighbours_and_threads_change_no_bit(make: Make) -> None:
    weights, memory = make("ugly", torch.bfloat16)
    together = [NativeStep(weights, memory)(feed) for feed in FEEDS]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            _, fresh = make("ugly", torch.bfloat16)
            step = NativeStep(weights, fresh)
            for feed, expected in zip(FEEDS, together, strict=True):
                for row in range(len(feed.tokens)):
                    alone = DecodeRows(
                        tokens=feed.tokens[row : row + 1],
                        positions=feed.positions[row : row + 1],
                        tables=feed.tables[row : row + 1].contiguous(),
                        wanted=torch.zeros(1, dtype=torch.int32),
                    )
                    for got, whole in zip(step(alone), expected, strict=True):
                        assert got.equal(whole[row : row + 1])
    finally:
        torch.set_num_threads(before)


@needs_library
def test_a_tensor_it_cannot_read_is_named(make: Make) -> None:
    weights, memory = make("round", torch.float32)
    turned = PagedMemory(keys=memory.keys.mT, values=memory.values, routes=None)
    with pytest.raises(ValueError, match=r"contiguous .* for keys"):
        NativeStep(weights, turned)
