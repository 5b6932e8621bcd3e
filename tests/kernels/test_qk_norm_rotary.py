import math
from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.qk_norm_rotary import (
    cpu_fused,
    qk_norm_rotary,
    reference,
    rotary_table,
    triton_kernel,
)

# tokens, heads, D, rotary_dim
SHAPES = [(63, 3, 20, 10), (1, 1, 60, 60), (33, 5, 7, 2), (0, 2, 8, 4)]
each_version = pytest.mark.parametrize(
    "fast",
    [qk_norm_rotary, cpu_fused.qk_norm_rotary, triton_kernel.qk_norm_rotary],
    ids=["cpu", "torch", "triton"],
)


@each_version
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_reference(
    shape: tuple[int, int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    tokens, heads, dim, turned = shape
    torch.manual_seed(0)
    x, upstream = 3 * torch.randn(2, tokens, heads, dim)
    weight = torch.randn(heads * dim)
    table = rotary_table(torch.arange(tokens) * 7, turned, 1e4)
    results = []
    for function in (fast, reference.qk_norm_rotary):
        inputs = (x.clone().requires_grad_(), weight.clone().requires_grad_())
        out = function(*inputs, *table, 1e-6)
        results.append([out, *torch.autograd.grad(out, inputs, upstream)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


@each_version
def test_bf16_is_as_close_as_bf16_can_be(fast: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(9, 3, 20).bfloat16(), torch.randn(60).bfloat16()
    table = rotary_table(torch.arange(9), 10, 1e4)
    out = fast(x, weight, *table, 1e-6)
    assert out.dtype == torch.bfloat16
    exact = reference.qk_norm_rotary(x.float(), weight.float(), *table, 1e-6)
    torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2)


def test_the_angle_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 20)
    products = []
    for shift in (0, 63, 1000):
        table = rotary_table(torch.tensor([5, 2]) + shift, 10, 5e6)
        turned = reference.rotary(torch.cat([q, k]), *table)
        products.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(torch.stack(products), products[0].repeat(3), rtol=1e-3, atol=1e-3)


def test_pairs_are_halves_apart_and_the_rest_passes_through() -> None:
    x = torch.zeros(1, 1, 6)
    x[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0, 7.0, 8.0])
    turned = reference.rotary(x, *rotary_table(torch.tensor([1]), 4, 1e4))
    expected = torch.tensor([math.cos(1), 0.0, math.sin(1), 0.0, 7.0, 8.0])
    torch.testing.assert_close(turned[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_position_zero_changes_nothing(dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, 60, dtype=dtype)
    assert torch.equal(
        reference.rotary(x, *rotary_table(torch.zeros(3, dtype=torch.int64), 30, 1e4)), x
    )
