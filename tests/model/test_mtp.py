from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rollmill.model.config import ModelConfig
from rollmill.model.model import Model, PackedAttention
from rollmill.model.mtp import MtpModules, mtp_from_trunk

MakeConfig = Callable[..., ModelConfig]


def pair(make_config: MakeConfig, count: int = 3) -> tuple[Model, MtpModules]:
    torch.manual_seed(0)
    config = make_config(num_mtp_modules=count)
    return Model(config), MtpModules(config)


def test_depths_equal_the_formula_of_one_segment(make_config: MakeConfig) -> None:
    model, mtp = pair(make_config)
    tokens = torch.randint(0, 97, (23,))
    state = model.hidden(tokens, [23])
    found = mtp.hidden(model, state, tokens, [23])
    for depth, module in enumerate(mtp.modules_by_depth(), start=1):
        length = 23 - depth
        state = module(
            state[:length],
            model.model.embed_tokens(tokens[depth:]),
            torch.arange(length),
            PackedAttention([length]),
        )
        hidden, rows = found[depth - 1]
        assert rows.tolist() == list(range(depth, 23))
        torch.testing.assert_close(hidden, state, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [[9, 1, 2, 3, 4, 17], [1, 1], [2], [3, 1, 3]], ids=str)
def test_packed_segments_do_not_see_each_other(lengths: list[int], make_config: MakeConfig) -> None:
    model, mtp = pair(make_config)
    tokens = torch.randint(0, 97, (sum(lengths),))
    packed = mtp.hidden(model, model.hidden(tokens, lengths), tokens, lengths)
    start, alone = 0, []
    for part in torch.split(tokens, lengths):
        depths = mtp.hidden(model, model.hidden(part, [len(part)]), part, [len(part)])
        alone.append([(hidden, rows + start) for hidden, rows in depths])
        start += len(part)
    for depth, (hidden, rows) in enumerate(packed):
        assert rows.tolist() == torch.cat([each[depth][1] for each in alone]).tolist()
        expected = torch.cat([each[depth][0] for each in alone])
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)


def test_a_depth_sees_its_own_tokens_and_none_beyond(make_config: MakeConfig) -> None:
    model, mtp = pair(make_config)
    tokens = torch.randint(0, 97, (30,))
    changed = tokens.clone()
    changed[20] = (changed[20] + 1) % 97
    before, after = (
        mtp.hidden(model, model.hidden(each, [30]), each, [30]) for each in (tokens, changed)
    )
    for depth in (1, 2, 3):
        first = 20 - depth  # the first position that reads token 20
        ours, theirs = before[depth - 1][0], after[depth - 1][0]
        torch.testing.assert_close(ours[:first], theirs[:first], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(ours[first], theirs[first], atol=1e-3)


def test_expansion_copies_the_first_module(make_config: MakeConfig) -> None:
    _, mtp = pair(make_config, count=1)
    first = mtp.modules_by_depth()[0].state_dict()
    grown = mtp.expanded(3)
    assert grown.config.num_mtp_modules == 3
    for module in grown.modules_by_depth():
        assert all(torch.equal(tensor, first[name]) for name, tensor in module.state_dict().items())
    with torch.no_grad():
        grown.modules_by_depth()[1].proj.weight.zero_()
    assert mtp.modules_by_depth()[0].proj.weight.any()
    with pytest.raises(ValueError, match="3 modules to 3 to 3, got 2"):
        grown.expanded(2)


def test_modules_from_the_trunk_start_as_one_more_layer_of_it(make_config: MakeConfig) -> None:
    model, _ = pair(make_config)
    (module,) = mtp_from_trunk(model, 1).modules_by_depth()
    last = model.model.decoder_layers()[-1]
    assert torch.equal(module.block.self_attn.q_proj.weight, last.self_attn.q_proj.weight)
    x = torch.randn(5, 60)
    joined = torch.cat([x, torch.randn(5, 60)], dim=-1)
    torch.testing.assert_close(module.proj(joined), x)


def test_a_model_without_modules_is_refused_by_name(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="num_mtp_modules of 1 to 3, got 0"):
        MtpModules(make_config())
    with pytest.raises(ValueError, match="num_mtp_modules must be 0 to 3, got 4"):
        replace(make_config(), num_mtp_modules=4)
