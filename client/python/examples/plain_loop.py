"""A training loop of one process: the guard clips, and skips the step that a broken batch would ruin.

    python plain_loop.py
"""

import torch

import gradwarden

torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
guard = gradwarden.Guard(model, optimizer, max_norm=1.0, skip="3x-rolling-mean", window=20, warmup=20)

skipped = []
for step in range(60):
    x = torch.randn(32, 16)
    y = x.sum(1, keepdim=True)
    if step == 40:
        y = y * 1000  # labels of another scale
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    outcome = guard.step(loss=loss, batch_ids=step)
    if not outcome.should_update:
        skipped.append(step)

print(f"last loss {loss.item():.3f}, skipped {skipped}")
guard.close()
