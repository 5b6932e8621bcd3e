import dataclasses
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import nn

from rollmill.model.train.config import TrainConfig
from rollmill.model.train.optim import Optimizer, learning_rate

CONFIG = TrainConfig(steps=100, lr=1.0, warmup_steps=10, decay_fraction=0.3, final_lr_fraction=0.1)


def test_wsd_warms_up_stays_and_decays_to_the_floor() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:70] == pytest.approx([1.0] * 61)
    assert all(later < earlier for earlier, later in pairwise(rates[70:]))
    assert rates[99] == pytest.approx(0.1 + 0.9 / 30)


def test_cosine_falls_from_peak_to_floor() -> None:
    config = dataclasses.replace(CONFIG, schedule="cosine")
    rates = [learning_rate(step, config) for step in range(100)]
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(0.1, abs=1e-2)


def quadratic(model: nn.Linear) -> torch.Tensor:
    return (model.weight.float() ** 2).sum() + (model.bias.float() - 1).pow(2).sum()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_too_small_for_bf16_still_add_up(dtype: Literal["float32", "bfloat16"]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.fill_(1.0)
    config = dataclasses.replace(CONFIG, dtype=dtype, weight_decay=0.0)
    optimizer = Optimizer(model, config)
    for _ in range(100):
        quadratic(model).backward()  # type: ignore[no-untyped-call]
        optimizer.step(lr=1e-4)  # 1 - 1e-4 rounds to 1 in bf16
    with optimizer.full_precision():
        assert model.weight.dtype == torch.float32
        assert model.weight.mean().item() == pytest.approx(0.99, abs=1e-3)
    assert model.weight.dtype == getattr(torch, dtype)


def test_vectors_are_not_decayed_and_gradients_are_clipped() -> None:
    model = nn.Linear(4, 4)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = Optimizer(model, dataclasses.replace(CONFIG, weight_decay=0.5, grad_clip=1e-3))
    (model.weight.sum() * 0 + model.bias.sum() * 0).backward()  # type: ignore[no-untyped-call]
    assert optimizer.step(lr=0.1) == 0.0
    assert model.weight.mean().item() == pytest.approx(0.95)
    assert model.bias.mean().item() == 1.0


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"lr": -1.0}, {"decay_fraction": 2.0}, {"dtype": "float16"}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(CONFIG, **wrong)  # type: ignore[arg-type]
