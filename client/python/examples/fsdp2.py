"""fully_shard (FSDP2): the norm is that of the whole model, though each rank holds a part of it.

    torchrun --nproc-per-node 4 fsdp2.py
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import gradwarden

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
mesh = init_device_mesh("cpu", (world,))
for layer in model:
    if isinstance(layer, torch.nn.Linear):
        fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
guard = gradwarden.Guard(model, optimizer, max_norm=1.0, skip="3x-rolling-mean", window=20, warmup=20)

skipped = []
for step in range(40):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step * world + rank))
    y = x.sum(1, keepdim=True)
    if step == 30 and rank == world - 1:
        y = y * 10_000
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    whole = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()]).norm().item()
    outcome = guard.step(loss=loss)
    assert abs(outcome.grad_norm / whole - 1) < 1e-5, (outcome.grad_norm, whole)
    if not outcome.should_update:
        skipped.append((step, outcome.reason))

if rank == 0:
    print(f"skipped {skipped}")
guard.close()
dist.destroy_process_group()
