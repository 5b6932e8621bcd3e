from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.paged_attention import paged_attention, reference, triton_kernel

# lengths, heads, kv_heads, D, page
CASES = [
    ([1, 63, 16, 17], 6, 2, 20, 16),
    ([5], 4, 4, 33, 1),
    ([7, 40], 3, 1, 8, 5),
    ([], 2, 2, 8, 4),
]


@pytest.mark.parametrize("fast", [paged_attention, triton_kernel.paged_attention], ids=["cpu", "t"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_equal_the_reference_and_foreign_memory_is_not_read(
    case: tuple[list[int], int, int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    lengths, heads, kv_heads, dim, page = case
    torch.manual_seed(0)
    most = max([-(-each // page) for each in lengths], default=1)
    order = torch.randperm(len(lengths) * most + 3)
    table = torch.full((len(lengths), most + 1), 10**9)  # pages that do not exist
    k, v = torch.full((2, len(order), page, kv_heads, dim), float("nan"))
    used = 0
    for row, length in enumerate(lengths):
        for number in range(-(-length // page)):
            table[row, number] = order[used]
            rest = min(page, length - number * page)
            for each in (k, v):
                each[order[used], :rest] = torch.randn(rest, kv_heads, dim)
            used += 1
    q = torch.randn(len(lengths), heads, dim)
    args = (q, k, v, table, torch.tensor(lengths, dtype=torch.int64))
    out = fast(*args)
    assert out.isfinite().all()
    torch.testing.assert_close(out, reference.paged_attention(*args), rtol=1e-4, atol=1e-4)
