"""Lightning with a guard: one callback.

    python lightning_trainer.py   (needs lightning)
"""

import tempfile

import lightning.pytorch as pl
import torch

import gradwarden.lightning


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))

    def training_step(self, batch, index):
        x, y = batch
        return torch.nn.functional.mse_loss(self.network(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


torch.manual_seed(1)
x = torch.randn(60 * 32, 16)
y = x.sum(1, keepdim=True)
y[40 * 32 : 41 * 32] *= 1000  # one batch with labels of another scale
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32)

callback = gradwarden.lightning.GuardCallback(max_norm=1.0, skip="3x-rolling-mean", window=20, warmup=20, log=True)
with tempfile.TemporaryDirectory() as directory:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        callbacks=[callback],
        default_root_dir=directory,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Regression(), data)

history = callback.guard.history
skipped = [int(step) for step, decision in zip(history["step"], history["decision"]) if decision == "skip"]
print(f"guarded {len(history['step'])} steps, skipped {skipped}")
