from collections.abc import Callable

import pytest
import torch

from rollmill.kernels.tree_attention import cpu_runs, reference, tree_attention, triton_kernel

# (length, parent) of nodes, depth first; -1 = a root
FORESTS: dict[str, list[tuple[int, int]]] = {
    "one sequence": [(63, -1)],
    "two sequences": [(5, -1), (1, -1), (33, -1)],
    "several blocks": [(130, -1), (70, 0), (65, 0)],
    "fork": [(40, -1), (7, 0), (30, 0)],
    "deep": [(3, -1), (35, 0), (1, 1), (2, 2), (9, 1), (1, 0), (17, -1), (1, 6), (1, 6)],
}
# heads, kv_heads, D; the last one is too wide for the blocks that bf16 has on a GPU
HEADS = [(6, 2, 20), (4, 4, 33), (3, 1, 8), (2, 1, 144)]


def exits_of(nodes: list[tuple[int, int]]) -> torch.Tensor:
    """The end of the subtree of each token's node."""
    ends, row = [], 0
    for length, _ in nodes:
        row += length
        ends.append(row)
    for index in range(len(nodes) - 1, -1, -1):
        parent = nodes[index][1]
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[index])
    lengths = torch.tensor([length for length, _ in nodes])
    return torch.tensor(ends).repeat_interleave(lengths)


@pytest.mark.parametrize(
    "fast",
    [tree_attention, cpu_runs.tree_attention, triton_kernel.tree_attention],
    ids=["cpu", "torch", "triton"],
)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("forest", FORESTS)
def test_values_and_gradients_equal_the_reference(
    forest: str, heads: tuple[int, int, int], fast: Callable[..., torch.Tensor]
) -> None:
    torch.manual_seed(0)
    exits = exits_of(FORESTS[forest])
    query, key, dim = heads
    shapes = [(len(exits), count, dim) for count in (query, key, key)]
    inputs, upstream = [torch.randn(each) for each in shapes], torch.randn(shapes[0])
    results = []
    versions: list[Callable[..., torch.Tensor]] = [fast, reference.tree_attention]
    for function in versions:
        leaves = [each.clone().requires_grad_() for each in inputs]
        out = function(*leaves, exits)
        results.append([out, *torch.autograd.grad(out, leaves, upstream)])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("forest", FORESTS)
def test_bf16_is_as_close_as_bf16_can_be(forest: str, heads: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    exits = exits_of(FORESTS[forest])
    query, key, dim = heads
    shapes = [(len(exits), count, dim) for count in (query, key, key)]
    inputs, upstream = [torch.randn(each).bfloat16() for each in shapes], torch.randn(shapes[0])
    results = []
    versions: list[tuple[Callable[..., torch.Tensor], torch.dtype]] = [
        (tree_attention, torch.bfloat16),
        (reference.tree_attention, torch.float32),
    ]
    for function, dtype in versions:
        leaves = [each.to(dtype).requires_grad_() for each in inputs]
        out = function(*leaves, exits)
        grads = torch.autograd.grad(out, leaves, upstream.bfloat16().to(dtype))
        results.append([out.detach(), *grads])
    for ours, exact in zip(*results, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).norm() < 1e-2 * exact.norm()


def test_a_branch_in_a_tree_equals_its_path_alone() -> None:
    torch.manual_seed(0)
    exits = exits_of(FORESTS["deep"])
    q, k, v = torch.randn(3, len(exits), 2, 8)
    path = [*range(38), *range(41, 50)]  # nodes 0, 1 and 4, without 2 and 3
    alone = torch.full((len(path),), len(path))
    expected = tree_attention(q[path], k[path], v[path], alone)
    torch.testing.assert_close(tree_attention(q, k, v, exits)[path], expected)


def test_tokens_of_another_branch_are_not_read() -> None:
    torch.manual_seed(0)
    exits = exits_of(FORESTS["fork"])
    q, k, v = torch.randn(3, len(exits), 2, 8)
    before = tree_attention(q, k, v, exits)
    # Triton multiplies by zero whatever in a block a query does not see.
    k[40:47], v[40:47] = (1e30, -1e30) if q.is_cuda else (float("inf"), float("nan"))
    after = tree_attention(q, k, v, exits)
    torch.testing.assert_close(after[47:], before[47:])
    torch.testing.assert_close(after[:40], before[:40])


def test_exits_that_were_written_to_count_as_they_are_now() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 70, 2, 8)
    exits = exits_of([(70, -1)])
    triton_kernel.tree_attention(q, k, v, exits)
    exits.copy_(exits_of([(35, -1), (35, -1)]))
    out = triton_kernel.tree_attention(q, k, v, exits)
    torch.testing.assert_close(out, reference.tree_attention(q, k, v, exits))
    with torch.inference_mode():
        inferred = triton_kernel.tree_attention(q, k, v, exits.clone())
    torch.testing.assert_close(inferred, out)
