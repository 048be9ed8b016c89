"""DistributedDataParallel: every rank decides alike, and a NaN is traced to the rank where it was born.

    torchrun --nproc-per-node 4 ddp.py
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gradwarden

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(1)
network = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
model = DistributedDataParallel(network, gradient_as_bucket_view=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
guard = gradwarden.Guard(model, optimizer, max_norm=1.0, skip="3x-rolling-mean", window=20, warmup=20)
# Reads each rank's own gradients before they are averaged; without it no rank knows which one is ill.
model.register_comm_hook(None, gradwarden.ddp.observe_local_hook(guard))

skipped = []
for step in range(40):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step * world + rank))
    if step == 30 and rank == world - 1:
        x[3, 5] = float("nan")
    loss = torch.nn.functional.mse_loss(model(x), x.nan_to_num().sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    outcome = guard.step(loss=loss)
    if not outcome.should_update:
        born = sorted({found.rank for found in outcome.non_finite if found.local})
        skipped.append((step, outcome.reason, born))

if rank == 0:
    print(f"skipped {skipped}")
guard.close()
dist.destroy_process_group()
