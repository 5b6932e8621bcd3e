from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.grouped_experts import cpu_sorted, grouped_experts, reference, triton_kernel

each_version = pytest.mark.parametrize(
    "fast",
    [grouped_experts, cpu_sorted.grouped_experts, triton_kernel.grouped_experts],
    ids=["cpu", "torch", "triton"],
)

# tokens, hidden, inner, experts, top_k
SHAPES = [(63, 60, 36, 7, 3), (500, 32, 8, 16, 2), (1, 60, 20, 12, 2), (5, 17, 9, 3, 1)]


def inputs(
    tokens: int, hidden: int, inner: int, experts: int, top_k: int
) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    chosen = torch.rand(tokens, experts).topk(top_k).indices
    return (
        torch.randn(tokens, hidden),
        chosen,
        torch.rand(tokens, top_k),
        torch.randn(experts, 2 * inner, hidden) / hidden**0.5,
        torch.randn(experts, hidden, inner) / inner**0.5,
    )


def assert_same(fast: Callable[..., torch.Tensor], args: tuple[torch.Tensor, ...]) -> None:
    upstream = torch.randn(args[0].shape)
    results = []
    for function in (fast, reference.grouped_experts):
        leaves = [each.clone().requires_grad_(each.is_floating_point()) for each in args]
        out = function(*leaves)
        learned = [each for each in leaves if each.requires_grad]
        results.append([out, *torch.autograd.grad(out, learned, upstream)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


@each_version
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_reference(
    shape: tuple[int, ...], fast: Callable[..., torch.Tensor]
) -> None:
    assert_same(fast, inputs(*shape))


@each_version
def test_experts_without_tokens_get_zero_gradients_not_rubbish(
    fast: Callable[..., torch.Tensor],
) -> None:
    x, _, weights, gate_up, down = inputs(63, 60, 36, 7, 2)
    chosen = torch.tensor([[6, 2]]).expand(63, 2).contiguous()
    assert_same(fast, (x, chosen, weights, gate_up, down))


@pytest.mark.parametrize("shape", [*SHAPES, (700, 48, 40, 4, 2)], ids=str)
def test_bf16_is_as_close_as_bf16_can_be(shape: tuple[int, ...]) -> None:
    x, chosen, weights, gate_up, down = inputs(*shape)
    leaves = [each.bfloat16() for each in (x, gate_up, down)]
    upstream = torch.randn(x.shape).bfloat16()
    results = []
    for function, dtype in (
        (grouped_experts, torch.bfloat16),
        (reference.grouped_experts, torch.float32),
    ):
        x, gate_up, down, shares = (
            each.detach().to(kind).requires_grad_()
            for each, kind in zip((*leaves, weights), (*[dtype] * 3, torch.float32), strict=True)
        )
        out = function(x, chosen, shares, gate_up, down)
        assert out.dtype == dtype
        grads = torch.autograd.grad(out, (x, gate_up, down, shares), upstream.to(dtype))
        results.append([out.detach(), *grads])
    for ours, exact in zip(*results, strict=True):
        assert (ours.float() - exact).norm() < 1e-2 * exact.norm()
        torch.testing.assert_close(ours.float(), exact, rtol=5e-2, atol=5e-2 * float(exact.std()))
