import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rollmill.model import fp8
from rollmill.model.checkpoint import (
    CheckpointError,
    load_model,
    load_mtp,
    load_weights,
    save_checkpoint,
)
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.mtp import MtpModules

MakeConfig = Callable[..., ModelConfig]
EXPERT = "model.layers.1.block_sparse_moe.experts.6.w1.weight"


@pytest.fixture
def model(make_config: MakeConfig) -> Model:
    """No router bias is zero, so that a lost one shows."""
    torch.manual_seed(0)
    model = Model(make_config())
    model.update_router_bias(torch.randint(0, 9, (2, 7)), 0.25)
    return model


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    save_checkpoint(model, tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_names_on_disk_are_the_published_ones(saved: Path) -> None:
    names = set(load_file(saved / "model.safetensors"))
    layer = "model.layers.0."
    assert {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        layer + "self_attn.q_norm.weight",
        layer + "block_sparse_moe.gate.weight",
        layer + "block_sparse_moe.e_score_correction_bias",
        layer + "block_sparse_moe.experts.0.w2.weight",
        layer + "block_sparse_moe.experts.6.w3.weight",
    } <= names
    assert len(names) == 3 + 2 * (4 + 2 + 2 + 2 + 3 * 7)


def test_what_we_save_we_load(model: Model, saved: Path) -> None:
    loaded = load_model(saved).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_transformers_reads_what_we_write(model: Model, saved: Path) -> None:
    theirs, info = cast(
        tuple[torch.nn.Module, dict[str, Any]],
        transformers.AutoModelForCausalLM.from_pretrained(
            saved, dtype=torch.float32, output_loading_info=True
        ),
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 97, (63,))
    torch.testing.assert_close(
        model(tokens, [63]), theirs(tokens[None]).logits[0], rtol=1e-4, atol=1e-4
    )


def test_we_read_what_transformers_writes(model: Model, saved: Path, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    loaded = load_model(tmp_path / "theirs").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_bf16_on_disk_rounds_the_weights_but_not_the_bias(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored[EXPERT].dtype == torch.bfloat16
    loaded = load_model(tmp_path, torch.bfloat16)
    assert {param.dtype for param in loaded.parameters()} == {torch.bfloat16}
    bias = loaded.model.decoder_layers()[0].block_sparse_moe.e_score_correction_bias
    assert bias.dtype == torch.float32
    assert bias.any()


def test_a_missing_tensor_is_named(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.pop(EXPERT))
    with pytest.raises(CheckpointError, match=EXPERT):
        load_model(saved)


def test_an_unknown_tensor_is_named(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({"model.mtp.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"no model\.mtp\.weight"):
        load_model(saved)


def test_a_misshapen_tensor_is_named_with_both_shapes(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({EXPERT: torch.zeros(36, 61)}))
    with pytest.raises(CheckpointError, match=r"\[36, 60\].*\[36, 61\].*experts\.6\.w1"):
        load_model(saved)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(poison: float, saved: Path) -> None:
    edit(saved, lambda tensors: tensors[EXPERT].view(-1)[5].fill_(poison))
    with pytest.raises(CheckpointError, match="finite weights"):
        load_model(saved)


def test_weights_of_another_kind_are_refused(saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({EXPERT: torch.zeros(36, 60).to(torch.int8)}))
    with pytest.raises(CheckpointError, match=r"got torch\.int8 .*convert"):
        load_model(saved)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_torn_file_is_named(keep: int, saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged .*model\.safetensors"):
        load_model(saved)


def test_a_folder_without_weights_is_named(saved: Path, model: Model) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="found none"):
        load_weights(model, saved)


def test_saving_again_replaces_the_old_weights(model: Model, saved: Path) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    save_checkpoint(model, saved)
    assert not load_model(saved).lm_head.weight.any()


def test_shards_and_their_index_hold_the_same_model(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path)
    save_checkpoint(model, tmp_path, shard_bytes=60_000)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"  # the one file went
    assert all(sum(t.nbytes for t in load_file(each).values()) <= 60_000 for each in shards)
    loaded = load_model(tmp_path).state_dict()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
        twin = theirs.state_dict()[name.replace("block_sparse_moe", "mlp")]
        assert torch.equal(twin, tensor), name
    save_checkpoint(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_missing_shard_and_a_broken_index_are_named(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, shard_bytes=60_000)
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    second.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{second.name}, which the index names"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="weight_map"):
        load_model(tmp_path)


LOADING = """
import resource, sys
from pathlib import Path
import torch
from rollmill.model.checkpoint import load_model

def rss(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024

load_model(Path(sys.argv[1]))  # what the libraries themselves take
before = rss("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load_model(Path(sys.argv[2]), torch.bfloat16)
held = sum(each.nbytes for each in model.state_dict().values())
print(rss("VmHWM") - before - held)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures through /proc")
def test_loading_holds_one_shard_beyond_the_model(
    model: Model, make_config: MakeConfig, tmp_path: Path
) -> None:
    save_checkpoint(model, tmp_path / "small")
    large = Model(make_config(num_local_experts=256, intermediate_size=256, hidden_size=120))
    shard = 8 << 20
    save_checkpoint(large, tmp_path / "large", shard_bytes=shard)
    assert len(list((tmp_path / "large").glob("*.safetensors"))) > 20
    result = subprocess.run(
        [sys.executable, "-c", LOADING, tmp_path / "small", tmp_path / "large"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(result.stdout) < 2 * shard  # the shard, and as much again for allocators


def test_loading_and_generating_import_no_compiler(saved: Path) -> None:
    """torch._dynamo and Triton cost most of a second and 116 MB, and nothing here uses them."""
    script = (
        "import sys; from pathlib import Path\n"
        "from rollmill.model.checkpoint import load_model\n"
        "from rollmill.model.engine import Engine, GenRequest\n"
        "engine = Engine(load_model(Path(sys.argv[1])))\n"
        "engine.generate([GenRequest(prompt_ids=(1, 2, 3), max_tokens=4)])\n"
        "print({'torch._dynamo', 'triton'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script, str(saved)]
    assert subprocess.check_output(command, text=True) == "set()\n"


@pytest.mark.parametrize("shape", [(128, 128), (36, 60), (129, 257), (1, 1000)], ids=str)
def test_fp8_blocks_keep_each_number_to_a_sixteenth(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-3, 3, shape[1])
    weight[0] = 0
    stored, scale = fp8.quantise(weight)
    assert stored.dtype == torch.float8_e4m3fn
    assert scale.shape == (-(-shape[0] // 128), -(-shape[1] // 128))
    back = fp8.dequantise(stored, scale)
    largest = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]
    # three bits of mantissa; below the smallest normal number 2^-6, steps of 2^-9
    assert ((back - weight).abs() <= (weight.abs() / 16).maximum(largest * 2**-10)).all()
    again, scale_again = fp8.quantise(back)
    torch.testing.assert_close(fp8.dequantise(again, scale_again), back)


def test_an_fp8_checkpoint_has_the_published_form_and_loads(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, torch.float8_e4m3fn)
    stored = load_file(tmp_path / "model.safetensors")
    attention = "model.layers.0.self_attn.q_proj.weight"
    for name in (EXPERT, attention):
        assert stored[name].dtype == torch.float8_e4m3fn
        assert stored[name + "_scale_inv"].dtype == torch.float32
    for name in ("lm_head.weight", "model.layers.0.block_sparse_moe.gate.weight"):
        assert stored[name].dtype == torch.bfloat16
        assert name + "_scale_inv" not in stored
    loaded = load_model(tmp_path)
    torch.manual_seed(1)
    tokens = torch.randint(0, 97, (63,))
    exact, rounded = model(tokens, [63]), loaded(tokens, [63])
    assert torch.nn.functional.cosine_similarity(exact, rounded).mean() > 0.95
    save_checkpoint(loaded, tmp_path / "again", torch.float8_e4m3fn)
    again = load_model(tmp_path / "again").state_dict()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_transformers_reads_our_fp8(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, torch.float8_e4m3fn)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path,
        dtype=torch.float32,
        quantization_config=transformers.FineGrainedFP8Config(dequantize=True),
    ).state_dict()
    for name, tensor in load_model(tmp_path).state_dict().items():
        twin = theirs[name.replace("block_sparse_moe", "mlp")]
        torch.testing.assert_close(twin.float(), tensor, rtol=1e-2, atol=1e-3, msg=name)


def test_fp8_without_fitting_scales_is_named(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, torch.float8_e4m3fn)
    edit(tmp_path, lambda tensors: tensors.update({EXPERT + "_scale_inv": torch.ones(2, 1)}))
    with pytest.raises(CheckpointError, match=r"\[1, 1\], got \[2, 1\] for .*experts\.6\.w1"):
        load_model(tmp_path)
    edit(tmp_path, lambda tensors: tensors.pop(EXPERT + "_scale_inv"))
    with pytest.raises(CheckpointError, match=r"w1\.weight_scale_inv beside"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["lm_head.weight", EXPERT])
def test_scales_beside_weights_that_are_not_fp8_are_named(name: str, saved: Path) -> None:
    edit(saved, lambda tensors: tensors.update({name + "_scale_inv": torch.ones(1, 1)}))
    with pytest.raises(CheckpointError, match=rf"beside {name}_scale_inv in .* got torch.float32"):
        load_model(saved)


def test_mtp_modules_travel_in_a_file_of_their_own(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(num_mtp_modules=2)
    model, mtp = Model(config), MtpModules(config)
    save_checkpoint(model, tmp_path, mtp=mtp)
    loaded = load_mtp(tmp_path)
    assert loaded is not None
    for name, tensor in mtp.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    _, info = cast(
        tuple[torch.nn.Module, dict[str, Any]],
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True),
    )
    assert not info["unexpected_keys"]
    edit_mtp = load_file(tmp_path / "mtp.safetensors")
    edit_mtp.pop("mtp.1.proj.weight")
    save_file(edit_mtp, tmp_path / "mtp.safetensors")
    with pytest.raises(CheckpointError, match=r"expected mtp\.1\.proj\.weight"):
        load_mtp(tmp_path)
    save_checkpoint(model, tmp_path)
    assert load_mtp(tmp_path) is None
    assert load_model(tmp_path).config.num_mtp_modules == 0
