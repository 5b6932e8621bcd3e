from collections.abc import Callable
from typing import Any

import pytest
import torch

from rollmill.kernels.adamw import adamw, cpu_torch, reference, squared_norm, triton_kernel

SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
each_version = pytest.mark.parametrize(
    "fast", [adamw, cpu_torch.adamw, triton_kernel.adamw], ids=["cpu", "torch", "triton"]
)


def assert_rounded(rounded: torch.Tensor, param: torch.Tensor, fast: Callable[..., None]) -> None:
    """To the bit; but Triton's interpreter cuts bits off where the GPU rounds."""
    ulp = 2**-7 if fast is triton_kernel.adamw and rounded.dtype == torch.bfloat16 else 0.0
    torch.testing.assert_close(rounded, param.to(rounded.dtype), rtol=ulp, atol=0)


@each_version
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1,), (63,), (17, 1000)], ids=str)
def test_three_steps_equal_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype, fast: Callable[..., None]
) -> None:
    results = []
    for function in (fast, reference.adamw):
        torch.manual_seed(0)
        param, mean, square = torch.randn(shape), torch.zeros(shape), torch.zeros(shape)
        rounded = torch.empty(shape, dtype=dtype)
        for step in range(1, 4):
            grad = torch.randn(shape).to(dtype)
            function(param, grad, mean, square, rounded, step=step, grad_scale=0.5, **SETTINGS)
        assert_rounded(rounded, param, fast)
        results.append((param, mean, square))
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-6)


@each_version
def test_a_copy_of_another_type_than_the_gradient_is_rounded_too(
    fast: Callable[..., None],
) -> None:
    param, grad = torch.randn(40), torch.randn(40)
    rounded = torch.empty(40, dtype=torch.bfloat16)
    fast(param, grad, torch.zeros(40), torch.zeros(40), rounded, step=1, **SETTINGS)
    assert_rounded(rounded, param, fast)


def test_it_is_the_adamw_of_pytorch() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(7, 5))
    ours = theirs.detach().clone()
    mean, square = torch.zeros(7, 5), torch.zeros(7, 5)
    optimizer = torch.optim.AdamW([theirs], **SETTINGS)
    for step in range(1, 6):
        theirs.grad = torch.randn(7, 5)
        adamw(ours, theirs.grad, mean, square, None, step=step, **SETTINGS)
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize(
    "fast",
    [squared_norm, cpu_torch.squared_norm, triton_kernel.squared_norm, reference.squared_norm],
    ids=["cpu", "torch", "triton", "reference"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(0,), (1,), (63,), (3, 70_001)], ids=str)
def test_the_squared_norm_is_the_sum_of_squares(
    shape: tuple[int, ...], dtype: torch.dtype, fast: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(0)
    grad = torch.randn(shape).to(dtype)
    exact = grad.double().square().sum().float()  # PyTorch adds up in a few lanes of fp32
    torch.testing.assert_close(fast(grad), exact, rtol=1e-4, atol=0)
    spread = torch.stack([grad, torch.full_like(grad, torch.nan)], -1)[..., 0]
    torch.testing.assert_close(fast(spread), exact, rtol=1e-4, atol=0)


def test_threads_change_no_bit_of_the_squared_norm() -> None:
    torch.manual_seed(0)
    grad, norms, threads = torch.randn(100_003), [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            norms.append(squared_norm(grad).item())
    finally:
        torch.set_num_threads(threads)
    assert len(set(norms)) == 1


def test_a_gradient_that_is_no_number_has_no_norm() -> None:
    assert squared_norm(torch.tensor([1.0, float("nan")])).isnan()
