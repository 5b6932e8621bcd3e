import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RANK = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from rollmill.model.config import ModelConfig
from rollmill.model.model import Model
from rollmill.model.train.parallel import clip_gradients, parallelise, total_load

rank, ranks, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=ranks)
mesh = init_device_mesh("cpu", (ranks,))
config = ModelConfig(
    vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=6, rotary_dim=4, intermediate_size=10,
    num_local_experts=6, num_experts_per_tok=2, initializer_range=0.2,
)
torch.manual_seed(0)
model = Model(config)
tokens = torch.randint(0, 61, (4, 18))
parallelise(model, mesh)
held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel()
           for p in model.parameters())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=False, foreach=False)
own = tokens.chunk(ranks)[rank]
inputs, targets = own[:, :-1].reshape(-1), own[:, 1:].reshape(-1)
curve = []
for step in range(4):
    logits = model(inputs, [17] * len(own))
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / (4 * 17)
    load = total_load(model, mesh)
    loss.backward()
    norm = clip_gradients(model, mesh, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    model.update_router_bias(load, 0.01)
    whole = loss.detach().clone()
    dist.all_reduce(whole)
    curve.append([float(whole), norm, load.sum().item()])
print(json.dumps({"curve": curve, "held": held}), flush=True)
dist.barrier()
dist.destroy_process_group()
os._exit(0)  # gloo's threads may abort the interpreter's own way out
"""


def curves(ranks: int, folder: Path) -> list[dict[str, list[list[float]]]]:
    meeting = folder / f"meeting-{ranks}"
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(rank), str(ranks), str(meeting)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    outputs = [each.communicate()[0] for each in started]
    assert [each.returncode for each in started] == [0] * ranks
    return [json.loads(each) for each in outputs]


@pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
)
def test_two_ranks_give_the_losses_of_one_and_hold_half_each(tmp_path: Path) -> None:
    (one,), two = curves(1, tmp_path), curves(2, tmp_path)
    assert one["curve"][-1][0] < 0.9 * one["curve"][0][0]
    for rank in two:
        for ours, alone in zip(rank["curve"], one["curve"], strict=True):
            assert ours == pytest.approx(alone, rel=1e-4)
        assert rank["held"] < 0.55 * one["held"]  # type: ignore[operator]
