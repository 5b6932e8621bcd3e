import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from rollmill.kernels.cross_entropy import reference
from rollmill.model.checkpoint import load_model, load_mtp
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules
from rollmill.model.tokenizer import Tokenizer
from rollmill.model.train.config import TrainConfig
from rollmill.model.train.launch import RankFailed, train_on_ranks
from rollmill.model.train.loop import train
from rollmill.model.train.losses import summed_loss
from rollmill.model.train.packing import pack
from rollmill.model.train.parallel import parallelise
from rollmill.model.train.run_folder import StepMetrics, read_metrics
from rollmill.model.train.samples import Sample

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
    )
]
CONFIG = TrainConfig(
    steps=6,
    batch_tokens=128,
    micro_batches=2,
    max_sample_tokens=64,
    lr=1e-2,
    warmup_steps=2,
    checkpoint_every=3,
    validate_every=4,
)


def fresh(tiny: ModelConfig) -> Model:
    torch.manual_seed(7)
    return Model(tiny)


def curve(folder: Path) -> list[tuple[float, ...]]:
    return [
        (
            each.loss,
            each.grad_norm,
            each.expert_load,
            each.validation_loss or 0.0,
            each.mtp_loss or 0.0,
        )
        for each in read_metrics(folder / "metrics.jsonl")
    ]


def test_two_ranks_give_the_losses_of_one_also_over_a_stop_in_between(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    few, held_out = samples[:9], samples[-1:]  # of one sample, a rank has nothing
    data = (tokenizer, few, tmp_path / "one")
    train(CONFIG, fresh(tiny), *data, validation=held_out)

    def killed_behind_its_checkpoint(metrics: StepMetrics) -> None:
        seen.append(metrics.step)
        if metrics.step == 4:
            raise KeyboardInterrupt

    seen: list[int] = []
    data = (tokenizer, few, tmp_path / "two")
    with pytest.raises(KeyboardInterrupt):
        train_on_ranks(
            2,
            CONFIG,
            fresh(tiny),
            *data,
            validation=held_out,
            progress=killed_behind_its_checkpoint,
        )
    assert seen == [1, 2, 3, 4]
    result = train_on_ranks(2, CONFIG, fresh(tiny), *data, validation=held_out)
    alone, together = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert alone[-1][0] < 0.9 * alone[0][0]
    assert len(together) == CONFIG.steps
    for ours, single in zip(together, alone, strict=True):
        assert ours == pytest.approx(single, rel=1e-4)
    assert result == tmp_path / "two/model"

    # What two ranks saved, one goes on from: nothing is left to do, and the weights are theirs.
    (tmp_path / "two/model/model.safetensors").unlink()
    again = train(CONFIG, fresh(tiny), *data, validation=held_out)
    assert (again / "model.safetensors").is_file()


def test_a_failing_rank_ends_the_others_and_says_why(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    odd = Model(dataclasses.replace(tiny, num_local_experts=3))
    with pytest.raises(RankFailed, match="expected experts in equal shares, got 3 for 2 ranks"):
        train_on_ranks(2, CONFIG, odd, tokenizer, samples, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_ranks_do_the_same_in_bf16_and_with_activations_computed_again(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path, dtype: Any
) -> None:
    config = dataclasses.replace(CONFIG, dtype=dtype, checkpoint_activations=True)
    train(config, fresh(tiny), tokenizer, samples, tmp_path / "one", validation=samples[-3:])
    data = (tokenizer, samples, tmp_path / "two")
    train_on_ranks(2, config, fresh(tiny), *data, validation=samples[-3:])
    alone, together = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert alone[-1][0] < 0.9 * alone[0][0]
    for ours, single in zip(together, alone, strict=True):
        assert ours == pytest.approx(single, rel=1e-4 if dtype == "float32" else 5e-2)
    assert head_dtype(tmp_path / "two/model") == torch.float32


def head_dtype(folder: Path) -> torch.dtype:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        head: torch.Tensor = file.get_tensor("lm_head.weight")
    return head.dtype


def test_mtp_modules_are_spread_with_the_model_and_saved_whole(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    mtp = MtpModules(dataclasses.replace(tiny, num_mtp_modules=2))
    few = samples[:9]  # of one sample, a rank has nothing
    start = copy.deepcopy(mtp)
    train(CONFIG, fresh(tiny), tokenizer, few, tmp_path / "one", mtp=copy.deepcopy(mtp))
    train_on_ranks(2, CONFIG, fresh(tiny), tokenizer, few, tmp_path / "two", mtp=mtp)
    for ours, single in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(single, rel=1e-4)
    one, two = (load_mtp(tmp_path / name / "model") for name in ("one", "two"))
    assert one
    assert two
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    began = start.modules_by_depth()[0].proj.weight
    assert not one.modules_by_depth()[0].proj.weight.equal(began)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view")  # not written to
def test_a_spread_head_computes_in_fp32_beside_bf16_when_asked(
    tiny: ModelConfig, samples: list[Sample], one_rank: DeviceMesh
) -> None:
    batch = pack(samples[:4])
    for head_dtype, error in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        model = fresh(tiny)
        head = model.lm_head.weight.detach().clone()
        parallelise(model, one_rank, torch.bfloat16, head_dtype=head_dtype)
        hidden = model.hidden(batch.tokens, batch.seq_lens)
        assert hidden.dtype == torch.bfloat16
        loss = summed_loss(model, hidden, batch)
        states, targets = hidden.detach()[batch.mask].float(), batch.targets[batch.mask]
        exact = float(reference.cross_entropy(states, head, targets))
        assert float(loss.detach()) == pytest.approx(exact, rel=error)
        if head_dtype == torch.bfloat16:  # which would show
            assert float(loss.detach()) != pytest.approx(exact, rel=1e-6)
        loss.backward()  # type: ignore[no-untyped-call]
        assert model.lm_head.weight.grad is not None
        assert model.lm_head.weight.grad.dtype == torch.float32


def test_two_ranks_train_a_head_in_fp32_beside_bf16(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, dtype="bfloat16", fp32_head=True)
    mtp = MtpModules(dataclasses.replace(tiny, num_mtp_modules=2))  # which use the head as well
    train(config, fresh(tiny), tokenizer, samples, tmp_path / "one", mtp=copy.deepcopy(mtp))
    train_on_ranks(2, config, fresh(tiny), tokenizer, samples, tmp_path / "two", mtp=mtp)
    alone, together = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert alone[-1][0] < 0.9 * alone[0][0]
    for ours, single in zip(together, alone, strict=True):
        assert ours == pytest.approx(single, rel=5e-2)


def test_two_ranks_train_new_modules_alone_first(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=4, mtp_only_steps=3)
    mtp = MtpModules(dataclasses.replace(tiny, num_mtp_modules=1))
    data = (tokenizer, samples[:9])
    train(config, fresh(tiny), *data, tmp_path / "one", mtp=copy.deepcopy(mtp))
    train_on_ranks(2, config, fresh(tiny), *data, tmp_path / "two", mtp=mtp)
    for ours, single in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(single, rel=1e-4)
    start = fresh(tiny).state_dict()
    before = load_model(tmp_path / "two/checkpoints/step-0000003").state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in start.items())
    after = load_model(tmp_path / "two/model").lm_head.weight
    assert not torch.equal(after, start["lm_head.weight"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_ranks_go_on_bit_for_bit(
    tiny: ModelConfig, tokenizer: Tokenizer, samples: list[Sample], tmp_path: Path, dtype: Any
) -> None:
    config = dataclasses.replace(CONFIG, dtype=dtype, fp32_head=True)

    def stopped(metrics: StepMetrics) -> None:
        if metrics.step == 4:
            raise KeyboardInterrupt

    for name in ("whole", "stopped"):
        data = (config, fresh(tiny), tokenizer, samples[:9], tmp_path / name)
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train_on_ranks(2, *data, validation=samples[-3:], progress=stopped)
        train_on_ranks(2, *data, validation=samples[-3:])
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    stopped_weights, weights = (
        (tmp_path / name / "model/model.safetensors").read_bytes() for name in ("stopped", "whole")
    )
    assert stopped_weights == weights
