"""A small transformer with a tied embedding, and data that every layout of it cuts in the same way."""

import torch
import torch.nn.functional as F

VOCABULARY, WIDTH, HEADS, LENGTH, BATCH = 22, 16, 4, 6, 8


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        # -1: under tensor parallelism a rank has a part of the heads.
        q, k, v = (f(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        return self.o(mixed.transpose(1, 2).flatten(2))


class Mlp(torch.nn.Module):
    def __init__(self, hidden=3 * WIDTH):
        super().__init__()
        self.up, self.down = torch.nn.Linear(WIDTH, hidden), torch.nn.Linear(hidden, WIDTH)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Block(torch.nn.Module):
    def __init__(self, mlp=Mlp):
        super().__init__()
        self.norm1, self.attention = torch.nn.LayerNorm(WIDTH), Attention()
        self.norm2, self.mlp = torch.nn.LayerNorm(WIDTH), mlp()

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Network(torch.nn.Module):
    def __init__(self, mlp=Mlp):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = torch.nn.ModuleList([Block(mlp) for _ in range(2)])
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.scale = torch.nn.Parameter(torch.ones(2))  # shorter than there are ranks: some hold nothing of it

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)) * self.scale.mean()


def network(dtype=torch.float32, mlp=Mlp):
    torch.manual_seed(11)
    return Network(mlp).to(dtype)


def untied(network):
    network.head.weight = torch.nn.Parameter(network.embed.weight.detach().clone())
    return network


def tokens(step):
    return torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(100 + step))


def part(batch, index, parts):
    """The sequences of one data-parallel rank."""
    return batch.chunk(parts)[index]


def loss_of(model, batch):
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def norm_of(tensors):
    return torch.stack([tensor.double().norm() for tensor in tensors]).norm().item()
