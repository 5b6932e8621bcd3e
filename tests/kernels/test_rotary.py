import math

import pytest
import torch

from rollmill.kernels.rotary import rotary, rotary_table


def test_the_angle_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 20)
    products = []
    for shift in (0, 63, 1000):
        table = rotary_table(torch.tensor([5, 2]) + shift, 10, 5e6)
        turned = rotary(torch.cat([q, k]), *table)
        products.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(torch.stack(products), products[0].repeat(3), rtol=1e-3, atol=1e-3)


def test_pairs_are_halves_apart_and_the_rest_passes_through() -> None:
    x = torch.zeros(1, 1, 6)
    x[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 7.0, 8.0])
    turned = rotary(x, *rotary_table(torch.tensor([1]), 4, 1e4))
    expected = torch.tensor([math.cos(1), 0.0, math.sin(1), 0.0, 7.0, 8.0])
    torch.testing.assert_close(turned[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_position_zero_changes_nothing(dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, 60, dtype=dtype)
    assert torch.equal(rotary(x, *rotary_table(torch.zeros(3, dtype=torch.int64), 30, 1e4)), x)
