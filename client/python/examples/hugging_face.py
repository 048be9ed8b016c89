"""Hugging Face Trainer with a guard: one callback.

    python hugging_face.py   (needs transformers and accelerate)
"""

import sys
import tempfile

import torch
import transformers

import gradwarden.transformers

torch.manual_seed(1)
config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)
model = transformers.GPT2LMHeadModel(config)
sequences = [(torch.arange(16) * (1 + i % 3) + i) % 40 for i in range(320)]
rows = [{"input_ids": row, "labels": row.clone()} for row in sequences]

callback = gradwarden.transformers.GuardCallback(skip="3x-rolling-mean", window=10, warmup=10)
with tempfile.TemporaryDirectory() as directory:
    args = transformers.TrainingArguments(
        directory,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        learning_rate=1e-3,
        max_grad_norm=1.0,  # becomes the guard's
        save_steps=20,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, args, train_dataset=rows, callbacks=[callback])
    trainer.train()

history = callback.guard.history
steps, clipped = len(history["step"]), int((history["clip_coefficient"] < 1).sum())
print(f"guarded {steps} steps, clipped {clipped}, loss {history['loss'][0]:.2f} to {history['loss'][-1]:.2f}")
sys.exit(steps == 0)
