from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.cross_entropy import cpu_chunked, cross_entropy, reference, triton_kernel

# tokens, hidden, vocabulary
SHAPES = [(63, 60, 1000), (513, 8, 5), (1, 60, 97), (0, 4, 9)]


@pytest.mark.parametrize(
    "fast",
    [cross_entropy, cpu_chunked.cross_entropy, triton_kernel.cross_entropy],
    ids=["cpu", "torch", "triton"],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_equal_the_reference(
    shape: tuple[int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    tokens, width, vocab = shape
    torch.manual_seed(0)
    hidden, head = 3 * torch.randn(tokens, width), torch.randn(vocab, width)
    targets = torch.randint(0, vocab, (tokens,))
    results = []
    for function in (fast, reference.cross_entropy):
        inputs = (hidden.clone().requires_grad_(), head.clone().requires_grad_())
        out = 0.7 * function(*inputs, targets)
        results.append([out, *torch.autograd.grad(out, inputs)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("fast", [cross_entropy, cpu_chunked.cross_entropy], ids=["cpu", "torch"])
def test_without_gradients_the_value_is_the_same(fast: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(1100, 17), torch.randn(33, 17), torch.arange(1100) % 33
    torch.testing.assert_close(
        fast(hidden, head, targets), reference.cross_entropy(hidden, head, targets)
    )
    assert fast(hidden[:0], head, targets[:0]).item() == 0


def test_bf16_sums_in_fp32_and_gives_bf16_gradients() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(700, 60, dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(97, 60, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 97, (700,))
    out = cross_entropy(hidden, head, targets)
    torch.autograd.backward(out)
    assert out.dtype == torch.float32
    torch.testing.assert_close(
        out, reference.cross_entropy(hidden, head, targets), rtol=1e-3, atol=1e-2
    )
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("fast", [cross_entropy, cpu_chunked.cross_entropy], ids=["cpu", "torch"])
def test_no_tensor_of_tokens_times_vocabulary_is_made(
    fast: Callable[..., torch.Tensor], largest_of: Callable[[Callable[[], object]], int]
) -> None:
    hidden, head = torch.randn(4000, 4, requires_grad=True), torch.randn(50, 4)
    targets = torch.zeros(4000, dtype=torch.int64)
    elements = largest_of(lambda: torch.autograd.backward(fast(hidden, head, targets)))
    assert 0 < elements < 4000 * 50 / 3
    with torch.no_grad():
        assert 0 < largest_of(lambda: fast(hidden, head, targets)) < 4000 * 50 / 3


@pytest.mark.parametrize("target", [-100, 7])
def test_a_target_outside_the_vocabulary_is_refused(target: int) -> None:
    hidden, head = torch.randn(3, 5, requires_grad=True), torch.randn(7, 5)
    targets = torch.tensor([1, target, 2])
    assert triton_kernel.cross_entropy(hidden, head, targets).isnan()
    if not hidden.is_cuda:
        with pytest.raises((IndexError, RuntimeError), match=r"targets|out of bounds"):
            cross_entropy(hidden, head, targets)
