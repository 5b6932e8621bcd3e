from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.paged_attention import (
    cpu_gathered,
    cpu_native,
    paged_attention,
    reference,
    triton_kernel,
)

Cache = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
VERSIONS = {
    "native": cpu_native.paged_attention,
    "gathered": cpu_gathered.paged_attention,
    "triton": triton_kernel.paged_attention,
}
compiled = pytest.mark.parametrize(
    "fast", [VERSIONS["native"], VERSIONS["triton"]], ids=["native", "triton"]
)
# (held before, new tokens) of each sequence, heads, kv_heads, D, page
CASES = [
    ([(0, 1), (62, 1), (15, 1), (16, 1)], 6, 2, 20, 16),
    ([(0, 19), (3, 1), (60, 9), (130, 3)], 8, 2, 32, 16),
    ([(4, 1)], 4, 4, 33, 1),
    ([(3, 4), (39, 1)], 3, 1, 8, 5),
    ([(100, 5)], 28, 2, 7, 16),
    ([], 2, 2, 8, 4),
]


def poisoned(lengths: list[int], kv_heads: int, dim: int, page: int) -> Cache:
    """Pages in no order; what no token uses is no number, and tables end in nowhere."""
    most = max([-(-each // page) for each in lengths], default=1)
    order = torch.randperm(len(lengths) * most + 3)
    table = torch.full((len(lengths), most + 1), 10**9, dtype=torch.int32)
    keys = torch.full((len(order), kv_heads, dim, page), float("nan"))
    values = torch.full((len(order), kv_heads, page, dim), float("nan"))
    used = iter(order.tolist())
    for row, length in enumerate(lengths):
        for number in range(-(-length // page)):
            at = table[row, number] = next(used)
            rest = min(page, length - number * page)
            keys[at, :, :, :rest] = torch.randn(kv_heads, dim, rest)
            values[at, :, :rest] = torch.randn(kv_heads, rest, dim)
    return keys, values, table


def rows(spans: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Owners and positions of the new tokens."""
    owner = [row for row, (_, new) in enumerate(spans) for _ in range(new)]
    positions = [held + at for held, new in spans for at in range(new)]
    return torch.tensor(owner, dtype=torch.int64), torch.tensor(positions, dtype=torch.int64)


@pytest.mark.parametrize("fast", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_equal_the_reference_and_foreign_memory_is_not_read(
    case: tuple[list[tuple[int, int]], int, int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    spans, heads, kv_heads, dim, page = case
    torch.manual_seed(0)
    cache = poisoned([sum(each) for each in spans], kv_heads, dim, page)
    q = torch.randn(sum(new for _, new in spans), heads, dim)
    args = (q, *cache, *rows(spans))
    out = fast(*args)
    assert out.isfinite().all()
    torch.testing.assert_close(out, reference.paged_attention(*args), rtol=1e-4, atol=1e-4)


@compiled
def test_sequences_that_share_pages_and_part_get_the_same_bits_as_alone(
    fast: Callable[..., torch.Tensor],
) -> None:
    torch.manual_seed(0)
    keys, values, table = poisoned([200] * 3, 2, 32, 16)
    table[1, :9] = table[0, :9]  # the third block of 64 keys is shared in part
    table[2, :4] = table[0, :4]
    owner = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    positions = torch.tensor([70, 199, 150, 5, 199, 180, 63])
    q = torch.randn(7, 6, 32)
    together = fast(q, keys, values, table, owner, positions)
    for row in range(7):
        one = slice(row, row + 1)
        alone = fast(q[one], keys, values, table, owner[one], positions[one])
        assert alone.equal(together[one])
    expected = reference.paged_attention(q, keys, values, table, owner, positions)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case",
    [
        ([(60, 30)], 4, 2, 32, 16),
        ([(0, 400)], 8, 2, 32, 16),  # some blocks, and more rows than meet one at once
        ([(130, 150), (300, 1), (0, 17)], 6, 2, 20, 16),
        ([(256, 70)], 3, 3, 33, 16),
    ],
    ids=str,
)
def test_bf16_is_read_as_it_lies_and_summed_in_fp32(
    case: tuple[list[tuple[int, int]], int, int, int, int],
) -> None:
    spans, heads, kv_heads, dim, page = case
    torch.manual_seed(0)
    keys, values, table = poisoned([sum(each) for each in spans], kv_heads, dim, page)
    q = torch.randn(sum(new for _, new in spans), heads, dim).bfloat16()
    keys, values, places = keys.bfloat16(), values.bfloat16(), rows(spans)
    out = paged_attention(q, keys, values, table, *places).float()
    wide = (q.float(), keys.float(), values.float(), table, *places)
    torch.testing.assert_close(out, reference.paged_attention(*wide), rtol=1e-2, atol=1e-2)


@compiled
def test_a_value_that_is_no_number_reaches_only_the_tokens_that_see_it(
    fast: Callable[..., torch.Tensor],
) -> None:
    torch.manual_seed(0)
    keys, values, table = poisoned([60, 60], 2, 32, 16)
    table[1, :3] = table[0, :3]
    values[table[0, 1], :, 7] = float("nan")  # position 23 of both
    values[table[1, 3], :, 2] = float("nan")  # position 50 of the second
    owner, positions = torch.tensor([0] * 6 + [1] * 2), torch.tensor([*range(19, 25), 22, 49])
    out = fast(torch.randn(8, 4, 32), keys, values, table, owner, positions)
    finite = out.isfinite().all(2).all(1).tolist()
    assert finite == [True, True, True, True, False, False, True, False]
    values[table[0, 1], :, 7] = 0
    assert fast(torch.randn(8, 4, 32), keys, values, table, owner, positions).isfinite().all()
