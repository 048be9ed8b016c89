#!/usr/bin/env python3
"""Trains everything of the laboratory, and records it through the PyTorch package.

    PYTHONPATH=BUILD/client/python tests/lab/train.py GRADWARDEN_COMMAND [DIRECTORY] [NAME...]

One gzipped JSON-lines file per training, named KIND-CAUSE-SEED, with what `gradwarden export --json` tells, numbers to four
digits, those of groups and ranks to two. The cause begins where CAUSE_FROM says, but for those that are there from the first step.
"""

import gzip
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile

import torch
import torch.distributed as dist

import gradwarden
from models import TASKS

STEPS = 260
EPOCH = 65  # batches
CAUSE_FROM = 130
WARMUP = 20
SEEDS = (1, 2, 3)
RANKS = 3
# What each cause is recorded with: all kinds of trainings that can have it.
CAUSES = {
    "healthy": ("rnn", "transformer", "mlp", "fp16"),
    "data": ("rnn", "transformer", "mlp", "fp16"),
    "learning_rate": ("rnn", "transformer", "mlp", "fp16"),
    "numerics": ("transformer", "mlp", "fp16"),
    "architecture": ("rnn", "transformer", "mlp"),
    "hardware": ("rnn", "transformer", "mlp"),
    "configuration": ("rnn", "transformer", "mlp", "fp16"),
}
KEPT = ("step", "loss", "grad_norm", "learning_rate", "loss_scale", "clip_threshold", "clip_coefficient", "decision", "reason",
        "nan_count", "inf_count", "batch_ids", "group_norms", "local_norms", "skipped")


def names():
    return [f"{kind}-{cause}-{seed}" for cause, kinds in CAUSES.items() for kind, seed in itertools.product(kinds, SEEDS)]


def group_of(name):
    """Few groups, in order of depth: what a person would name."""
    parts = name.split(".")
    if parts[0] == "recurrent":
        return "recurrent.hidden" if "_hh_" in name else "recurrent.input"
    return ".".join(parts[:2]) if parts[0] in ("blocks", "layers") else parts[0]


class Training:
    def __init__(self, kind, cause, seed, rank, world, path):
        torch.manual_seed(seed)
        self.cause, self.seed, self.rank, self.world = cause, seed, rank, world
        self.task = TASKS[kind](seed, normalised=cause != "architecture")
        self.half = kind == "fp16" or cause == "numerics"
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=100) if self.half else None
        self.rate = self.task.bad_rate if cause == "learning_rate" else self.task.rate
        self.warmup = CAUSE_FROM if cause == "learning_rate" else WARMUP
        clip = self.task.clip * (0.02 if cause == "configuration" else 1)
        make = getattr(self.task, "optimizer", lambda parameters, rate: torch.optim.AdamW(parameters, lr=rate))
        self.optimizer = make(self.task.model.parameters(), self.rate)
        self.bad_batches = {seed * 7 % EPOCH, (seed * 31 + 11) % EPOCH} if cause == "data" else set()
        self.guard = gradwarden.Guard(
            self.task.model, self.optimizer, max_norm=clip, groups=group_of, run="lab", shadow=False, warmup=20,
            history_path=path if rank == 0 else "", local_every=1, skip_non_finite=True)

    def batch_of(self, step):
        """The first seed sees every batch once; the others go through epochs."""
        index = step if self.seed == 1 else step % EPOCH
        if index % EPOCH in self.bad_batches and (self.seed != 1 or step >= CAUSE_FROM):
            return index, self.task.corrupted(index)
        return index, self.task.batch(index * self.world + self.rank)

    def set_rate(self, step):
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1, (step + 1) / self.warmup)

    def loss_of(self, step, batch):
        if not self.half:
            return self.task.loss(self.task.model, batch)
        if self.cause == "numerics" and step == CAUSE_FROM:
            self.task.strain()
        with torch.autocast("cpu", dtype=torch.float16):
            return self.task.loss(self.task.model, batch)

    def break_rank(self, step):
        """Now and then one rank's gradients come out wrong, as from a multiplier that fails when it is hot."""
        if self.cause == "hardware" and self.rank == self.seed % RANKS and step >= CAUSE_FROM and (step // 8) % 3 == 0:
            for parameter in self.task.model.parameters():
                parameter.grad.mul_(40)

    def reduce(self):
        for parameter in self.task.model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(self.world)

    def run(self):
        for step in range(STEPS):
            self.set_rate(step)
            index, batch = self.batch_of(step)
            self.optimizer.zero_grad()
            loss = self.loss_of(step, batch)
            (self.scaler.scale(loss) if self.scaler else loss).backward()
            self.break_rank(step)
            if self.world > 1:
                self.guard.observe_local()
                self.reduce()
            names = [f"shard{index % EPOCH // 20}/batch{index}"]
            self.guard.step(step, loss=loss.detach(), batch_ids=names, scaler=self.scaler)
            if self.scaler:
                self.scaler.update()
        self.guard.close()


def train_rank(rank, world, directory, kind, cause, seed):
    torch.set_num_threads(1)
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=world)
    Training(kind, cause, seed, rank, world, f"{directory}/history").run()
    if world > 1:
        dist.destroy_process_group()


def rounded(value, digits=4):
    if isinstance(value, list):
        return [rounded(one, 2) for one in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def record(command, name, directory):
    kind, cause, seed = name.split("-")
    world = RANKS if cause == "hardware" else 1
    with tempfile.TemporaryDirectory() as scratch:
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=train_rank, args=(rank, world, scratch, kind, cause, int(seed)))
                 for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        assert all(rank.exitcode == 0 for rank in ranks), name
        lines = subprocess.run([command, "export", "--json", f"{scratch}/history"], check=True, capture_output=True, text=True)
    groups = group_names(kind, cause, int(seed))
    with open(f"{directory}/{name}.jsonl.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for number, line in enumerate(lines.stdout.splitlines()):
            report = json.loads(line)
            kept = {key: rounded(report[key]) for key in KEPT if report.get(key) not in (None, [], 0, "", "within_limits")}
            kept.setdefault("step", report["step"])
            if number == 0:
                kept["groups"] = groups
            elif kept.get("decision") == "apply":
                del kept["decision"]
            if kept.get("clip_coefficient") == 1:
                del kept["clip_coefficient"]
            file.write((json.dumps(kept, separators=(",", ":")) + "\n").encode())


def group_names(kind, cause, seed):
    model = TASKS[kind](seed, normalised=cause != "architecture").model
    return list(dict.fromkeys(group_of(name) for name, _ in model.named_parameters()))


def main():
    command = sys.argv[1]
    directory = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "recordings")
    os.makedirs(directory, exist_ok=True)
    torch.set_num_threads(1)
    for name in sys.argv[3:] or names():
        record(command, name, directory)
        print(name, flush=True)


if __name__ == "__main__":
    main()
