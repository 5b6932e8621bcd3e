from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.qk_norm_rotary import cpu_fused, qk_norm_rotary, reference, triton_kernel
from rollmill.kernels.rotary import rotary_table

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
