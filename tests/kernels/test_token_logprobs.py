from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.token_logprobs import (
    cpu_chunked,
    reference,
    token_logprobs,
    triton_kernel,
)

# tokens, hidden, vocabulary
SHAPES = [(63, 60, 1000), (513, 8, 5), (1, 60, 97), (0, 4, 9)]


@pytest.mark.parametrize(
    "fast",
    [token_logprobs, cpu_chunked.token_logprobs, triton_kernel.token_logprobs],
    ids=["cpu", "torch", "triton"],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_reference(
    shape: tuple[int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    tokens, width, vocab = shape
    torch.manual_seed(0)
    hidden, head = 3 * torch.randn(tokens, width), torch.randn(vocab, width)
    targets, upstream = torch.randint(0, vocab, (tokens,)), torch.randn(tokens)
    results = []
    for function in (fast, reference.token_logprobs):
        inputs = (hidden.clone().requires_grad_(), head.clone().requires_grad_())
        out = function(*inputs, targets)
        results.append([out, *torch.autograd.grad(out, inputs, upstream)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("target", [-1, 97])
@pytest.mark.parametrize("fast", [token_logprobs, cpu_chunked.token_logprobs], ids=["cpu", "torch"])
def test_a_target_outside_the_vocabulary_is_refused(
    target: int, fast: Callable[..., torch.Tensor]
) -> None:
    hidden, head, targets = torch.randn(3, 4), torch.randn(97, 4), torch.tensor([0, target, 5])
    finite = triton_kernel.token_logprobs(hidden, head, targets).isfinite()
    assert finite.tolist() == [True, False, True]
    if not hidden.is_cuda:
        with pytest.raises((IndexError, RuntimeError), match=r"expected targets|out of bounds"):
            fast(hidden, head, targets)


@pytest.mark.parametrize("fast", [token_logprobs, cpu_chunked.token_logprobs], ids=["cpu", "torch"])
def test_no_tensor_of_tokens_times_vocabulary_is_made(
    fast: Callable[..., torch.Tensor], largest_of: Callable[[Callable[[], object]], int]
) -> None:
    hidden, head = torch.randn(4000, 4, requires_grad=True), torch.randn(50, 4)
    targets = torch.zeros(4000, dtype=torch.int64)
    elements = largest_of(lambda: torch.autograd.backward(fast(hidden, head, targets).sum()))
    assert 0 < elements < 4000 * 50 / 3


@pytest.mark.parametrize("fast", [token_logprobs, cpu_chunked.token_logprobs], ids=["cpu", "torch"])
def test_huge_logits_do_not_overflow(fast: Callable[..., torch.Tensor]) -> None:
    hidden = torch.full((2, 1), 1e4, requires_grad=True)
    out = fast(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
    torch.autograd.backward(out.sum())
    assert out.tolist() == [0.0, -2e4]
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_bf16_gives_fp32_logprobs_and_bf16_gradients() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(63, 60, dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(97, 60, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 97, (63,))
    out = token_logprobs(hidden, head, targets)
    torch.autograd.backward(out.sum())
    assert out.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    torch.testing.assert_close(out, reference.token_logprobs(hidden, head, targets))
