"""A small GPT over bytes, data parallel, into which faults are put: what they do with and without the guard.

    torchrun --nproc-per-node 4 gpt_faults.py --guard skip --faults all

Texts: the licences that every Debian system has, or --text FILE. The faults, at a third, a half and two thirds of the run:
    batch   rank 2 reads garbage: bytes at random, and its loss is a sum where it should be a mean
    nan     one element of one gradient is NaN on rank 1, before the reduction
    rate    the learning rate is 100 times what it should be, for three steps
--guard skip acts, observe only reports, off clips by torch alone. The last line is one JSON object.
"""

import argparse
import json
import pathlib

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import gradwarden

CONTEXT, WIDTH, HEADS, LAYERS, BATCH = 48, 64, 4, 3, 4
RATE, MAX_NORM = 2e-3, 1.0


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(WIDTH, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.ln_2(x))


class Gpt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(256, WIDTH), torch.nn.Embedding(CONTEXT, WIDTH)
        self.h = torch.nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.ln_f = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, 256, bias=False)

    def forward(self, tokens):
        return self.head(self.ln_f(self.h(self.wte(tokens) + self.wpe.weight[: tokens.shape[1]])))


def text_of(path):
    files = [pathlib.Path(path)] if path else sorted(pathlib.Path("/usr/share/common-licenses").iterdir())
    data = b"".join(file.read_bytes() for file in files if file.is_file() and not file.is_symlink())
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


def windows(text, starts):
    rows = torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()])
    return rows[:, :-1], rows[:, 1:]


def held_out_loss(model, text):
    tokens, targets = windows(text, torch.arange(0, len(text) - CONTEXT - 1, CONTEXT)[:256])
    with torch.no_grad():
        return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).item()


def fault_at(step, steps, faults):
    """The fault of this step, or none."""
    at = {"batch": {steps // 3}, "nan": {steps // 2}, "rate": set(range(2 * steps // 3, 2 * steps // 3 + 3))}
    return next((name for name, when in at.items() if step in when and faults in (name, "all")), None)


def loss_of(model, text, step, fault):
    rank = dist.get_rank()
    generator = torch.Generator().manual_seed(step * dist.get_world_size() + rank)
    tokens, targets = windows(text, torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=generator))
    garbage = fault == "batch" and rank == 2
    if garbage:
        tokens, targets = (torch.randint(256, tokens.shape, generator=generator) for _ in range(2))
    reduction = "sum" if garbage else "mean"
    return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction=reduction)


def break_gradient(model, step, steps, faults):
    """A NaN in this rank's own gradient of one matrix, as it leaves the backward pass."""

    def hook(gradient):
        if fault_at(step[0], steps, faults) == "nan" and dist.get_rank() == 1:
            gradient = gradient.clone()
            gradient[3, 5] = float("nan")
        return gradient

    model.h[1].c_attn.weight.register_hook(hook)


def train(arguments, network, text):
    model = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    guard = None
    if arguments.guard != "off":
        guard = gradwarden.Guard(
            model, optimizer, max_norm=MAX_NORM, skip="3x-rolling-mean", warmup=20, window=50,
            shadow=arguments.guard == "observe", daemon=arguments.daemon, run=arguments.run if arguments.daemon else "",
        )  # fmt: skip
        model.register_comm_hook(None, gradwarden.ddp.observe_local_hook(guard))
    now, skipped = [0], []
    break_gradient(network, now, arguments.steps, arguments.faults)
    for step in range(arguments.steps):
        now[0] = step
        fault = fault_at(step, arguments.steps, arguments.faults)
        for group in optimizer.param_groups:
            group["lr"] = RATE * (100 if fault == "rate" else 1)
        optimizer.zero_grad()
        loss = loss_of(model, text, step, fault)
        loss.backward()
        if guard is None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
        elif (outcome := guard.step(loss=loss, batch_ids=[f"seed-{step}"])).decision == "skip":
            skipped.append((step, outcome.reason, sorted({one.rank for one in outcome.non_finite if one.local})))
    if guard is not None and arguments.plot and dist.get_rank() == 0:
        gradwarden.plot(guard).savefig(arguments.plot, dpi=110)
    if guard is not None:
        guard.close()
    return skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guard", choices=("skip", "observe", "off"), default="skip")
    parser.add_argument("--faults", choices=("none", "all", "batch", "nan", "rate"), default="all")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--text", default="", help="a file, in place of the licences")
    parser.add_argument("--daemon", default="", help="host:port of gradwardend")
    parser.add_argument("--run", default="gpt", help="the name of the run for the daemon")
    parser.add_argument("--plot", default="", help="a picture of the run, for example gpt.png; needs matplotlib")
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    network = Gpt()
    text = text_of(arguments.text)
    part = len(text) * 9 // 10
    skipped = train(arguments, network, text[:part])
    if dist.get_rank() == 0:
        loss = held_out_loss(network, text[part:])
        result = {"guard": arguments.guard, "faults": arguments.faults, "held_out_loss": round(loss, 4), "skipped": skipped}
        print(json.dumps(result).replace("NaN", "null"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
