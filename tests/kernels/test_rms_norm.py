from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.rms_norm import cpu_fused, reference, rms_norm, triton_kernel

SHAPES = [(63, 60), (1, 1000), (3, 7, 33), (0, 16)]


@pytest.mark.parametrize(
    "fast",
    [rms_norm, cpu_fused.rms_norm, triton_kernel.rms_norm],
    ids=["cpu", "torch", "triton"],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_reference(
    shape: tuple[int, ...], fast: Callable[..., torch.Tensor]
) -> None:
    torch.manual_seed(0)
    x, upstream = 3 * torch.randn(shape), torch.randn(shape)
    weight = torch.randn(shape[-1])
    results = []
    for function in (fast, reference.rms_norm):
        inputs = (x.clone().requires_grad_(), weight.clone().requires_grad_())
        out = function(*inputs, 1e-6)
        results.append([out, *torch.autograd.grad(out, inputs, upstream)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


def test_bf16_is_as_close_as_bf16_can_be() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(63, 60, dtype=torch.bfloat16), torch.randn(60, dtype=torch.bfloat16)
    out = rms_norm(x, weight, 1e-6)
    assert out.dtype == torch.bfloat16
    exact = reference.rms_norm(x.float(), weight.float(), 1e-6)
    torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2)


def test_a_row_of_zeros_stays_zero_with_finite_gradients() -> None:
    x = torch.zeros(2, 60, requires_grad=True)
    out = rms_norm(x, torch.ones(60), 1e-6)
    torch.autograd.backward(out.sum())
    assert not out.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()
