from collections.abc import Callable

import numpy as np
import pytest
import torch

from rollmill.kernels.sampling import cpu_batched, reference, sample, sample_whole, triton_kernel


def settings(rows: int) -> tuple[torch.Tensor, ...]:
    """Temperature, top_k, top_p and a uniform number a row; some rows greedy, some unlimited."""
    torch.manual_seed(0)
    temperature = torch.rand(rows) * 2
    temperature[::7] = 0
    top_k = torch.randint(0, 12, (rows,))
    top_p = torch.rand(rows).clamp(0.05)
    top_p[::3] = 1.0
    return temperature, top_k, top_p, torch.rand(rows)


def test_every_row_equals_the_reference() -> None:
    args = settings(1000)
    logits = 3 * torch.randn(1000, 63)
    tokens, logprobs = sample(logits, *args)
    expected_tokens, expected_logprobs = reference.sample(logits, *args)
    # A uniform number on the edge of two tokens may fall to either.
    assert (tokens == expected_tokens).float().mean() >= 0.999
    same = tokens == expected_tokens
    torch.testing.assert_close(logprobs[same], expected_logprobs[same])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    args = settings(63)
    logits = torch.randn(63, 97)
    together, _ = sample(logits, *args)
    for row in range(63):
        alone, _ = sample(logits[row : row + 1], *(each[row : row + 1] for each in args))
        assert alone.item() == together[row].item()


def test_triton_draws_what_the_reference_draws_on_ugly_rows() -> None:
    args = settings(6)
    logits = (3 * torch.randn(6, 70)).mul(4).round().div(4)  # many equal logits
    logits[4, 10:] = float("-inf")
    tokens, logprobs = triton_kernel.sample(logits, *args)
    expected_tokens, expected_logprobs = reference.sample(logits, *args)
    assert tokens.tolist() == expected_tokens.tolist()
    torch.testing.assert_close(logprobs, expected_logprobs)


def test_frequencies_follow_the_truncated_distribution() -> None:
    probs = torch.tensor([0.4, 0.3, 0.2, 0.1])
    rows = 20_000
    uniform = (torch.arange(rows) + 0.5) / rows
    full = torch.ones(rows)
    tokens, logprobs = sample(
        probs.log().expand(rows, 4), full, (3 * full).long(), 0.6 * full, uniform
    )
    # top-k leaves 4:3:2, of which the first two hold more than 0.6.
    assert (
        torch.bincount(tokens, minlength=4)
        .div(rows)
        .sub(torch.tensor([4 / 7, 3 / 7, 0.0, 0.0]))
        .abs()
        .max()
        < 1e-3
    )
    torch.testing.assert_close(logprobs, probs.log()[tokens])  # of the whole distribution


def test_greedy_takes_the_likeliest_whatever_the_rest_says() -> None:
    logits = torch.randn(63, 1000)
    zero = torch.zeros(63)
    tokens, logprobs = sample(logits, zero, zero.long(), zero + 1e-3, torch.rand(63))
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1))


def test_the_largest_uniform_number_stays_inside() -> None:
    almost_one = torch.tensor([1 - 2**-24])
    one = torch.ones(1)
    tokens, _ = sample(torch.zeros(1, 1000), one, one.long() * 0, one, almost_one)
    assert 0 <= tokens.item() < 1000


@pytest.mark.parametrize("version", [sample, reference.sample, triton_kernel.sample])
def test_the_coldest_temperature_is_greedy_and_forbidden_tokens_stay_forbidden(
    version: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> None:
    torch.manual_seed(1)
    logits = 30 * torch.randn(6, 70)
    logits[:, ::3] = float("-inf")
    logits[5, 7] = 3e38  # divided by the temperature, infinite
    likeliest = logits.argmax(-1)
    cold = torch.full((6,), torch.finfo(torch.float32).tiny)
    top_k, top_p = torch.tensor([0, 3] * 3), torch.tensor([1.0, 1.0, 0.5] * 2)
    with np.errstate(over="ignore"):  # Triton's interpreter would warn of what is meant: -inf
        tokens, logprobs = version(logits, cold, top_k, top_p, torch.full((6,), 0.9))
    assert tokens.tolist() == likeliest.tolist()
    assert logprobs.tolist() == [0.0] * 6


each_whole = pytest.mark.parametrize(
    "draw",
    [sample_whole, cpu_batched.sample_whole, triton_kernel.sample_whole],
    ids=["cpu", "torch", "triton"],
)


@each_whole
@pytest.mark.parametrize("vocab", [1, 17, 256, 1000, 4099])
def test_whole_rows_equal_the_reference(vocab: int, draw: Callable[..., torch.Tensor]) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(300, vocab)
    temperature = 2 * torch.rand(300, dtype=torch.float64)
    temperature[::7] = 0
    uniform = torch.rand(300, dtype=torch.float64)
    uniform[1], uniform[2] = 0, 1 - 2**-53
    tokens, logprobs = draw(logits, temperature, uniform)
    expected, expected_logprobs = reference.sample_whole(logits, temperature, uniform)
    # A number on the edge of two tokens may fall to either.
    assert (tokens == expected).float().mean() >= 0.99
    same = tokens == expected
    torch.testing.assert_close(logprobs[same], expected_logprobs[same])


@each_whole
def test_tokens_without_a_chance_are_never_drawn(draw: Callable[..., torch.Tensor]) -> None:
    logits = torch.full((4, 1000), -torch.inf)
    logits[:, 500:503] = torch.tensor([1.0, -1e30, 2.0])
    heat = torch.tensor([1.0, 1.2e-38, 3e38, 0.0], dtype=torch.float64)
    drawn = {
        int(token)
        for number in (0.0, 0.2, 0.7, 1 - 2**-53)
        for token in draw(logits, heat, torch.full((4,), number, dtype=torch.float64))[0]
    }
    assert drawn <= {500, 501, 502}
    assert {500, 502} <= drawn


@each_whole
def test_a_row_that_is_damaged_says_so_and_the_others_go_on(
    draw: Callable[..., torch.Tensor],
) -> None:
    logits = torch.randn(4, 97)
    logits[0, 96], logits[1, 3], logits[2, 40] = torch.nan, torch.inf, -torch.inf
    heat = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    _, logprobs = draw(logits, heat, torch.full((4,), 0.5, dtype=torch.float64))
    assert logprobs.isnan().tolist() == [True, True, True, False]


@each_whole
def test_frequencies_of_whole_rows_follow_the_temperature(
    draw: Callable[..., torch.Tensor],
) -> None:
    rows = 20_000
    uniform = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    logits = torch.tensor([1.0, -0.5, 2.0, 0.0])
    heat = torch.full((rows,), 0.7, dtype=torch.float64)
    tokens, _ = draw(logits.expand(rows, 4), heat, uniform)
    shares = torch.bincount(tokens, minlength=4) / rows
    torch.testing.assert_close(shares, (logits / 0.7).softmax(-1), atol=1e-4, rtol=0)
