"""The small trainings of the laboratory: what is learnt, by what, from which batches.

Each task is a function of a seed. `batch(index)` is always the same for the same index, so that an epoch can bring a batch
again.
"""

import torch
from torch import nn


def _generator(seed, index):
    return torch.Generator().manual_seed(seed * 1_000_003 + index)


HALF_EDGE = 66000.0


def largest_of(module, task, function):
    """The largest magnitude that `function` makes of a module's output, for the median of some batches."""
    found = []
    hook = module.register_forward_hook(lambda _, __, output: found.append(function(output.float()).abs().max().item()))
    for index in range(9):
        task.loss(task.model, task.batch(index))
    hook.remove()
    return sorted(found)[len(found) // 2]


class Recurrent(nn.Module):
    """Says the sum of the two marked numbers of a long sequence."""

    def __init__(self, normalised=True):
        super().__init__()
        linear = nn.RNN(2, 24, batch_first=True, nonlinearity="relu")
        self.recurrent = nn.GRU(2, 24, batch_first=True) if normalised else linear
        self.head = nn.Linear(24, 1)
        if not normalised:  # nothing bounds a recurrence that grows with every step of the sequence
            with torch.no_grad():
                self.recurrent.weight_hh_l0.copy_(1.07 * torch.eye(24))

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class RecurrentTask:
    optimizer = staticmethod(lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9))
    rate = 0.03
    bad_rate = 3.0
    clip = 5.0

    def __init__(self, seed, normalised):
        self.seed = seed
        self.model = Recurrent(normalised)

    def batch(self, index):
        generator = _generator(self.seed, index)
        values = torch.rand(16, 60, 1, generator=generator)
        marks = torch.zeros(16, 60, 1)
        first = torch.randint(0, 30, (16,), generator=generator)
        second = torch.randint(30, 60, (16,), generator=generator)
        rows = torch.arange(16)
        marks[rows, first] = marks[rows, second] = 1
        return torch.cat([values, marks], 2), (values * marks).sum(1)

    def corrupted(self, index):
        x, y = self.batch(index)
        return x, y * -40 + 10

    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]).float(), batch[1])


class Block(nn.Module):
    """Without norms also without the paths around it."""

    def __init__(self, width, normalised):
        super().__init__()
        self.normalised = normalised
        norm = nn.LayerNorm if normalised else nn.Identity
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x, mask):
        h = self.norm1(x)
        attended = self.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
        if not self.normalised:
            return self.mlp(attended)
        x = x + attended
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, normalised=True):
        super().__init__()
        width = 32
        self.embedding = nn.Embedding(32, width)
        self.blocks = nn.ModuleList(Block(width, normalised) for _ in range(3 if normalised else 6))
        self.head = nn.Linear(width, 32)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(24), persistent=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.mask.to(x.dtype))
        return self.head(x)


class TransformerTask:
    """The next letter of a random language in which each letter depends on the two before it."""

    rate = 2e-3
    bad_rate = 0.2
    clip = 3.0

    def __init__(self, seed, normalised):
        self.seed = seed
        self.model = Transformer(normalised)
        table = torch.randn(32, 32, 32, generator=_generator(seed, -1)) * 2
        self.table = table.softmax(-1)

    def batch(self, index):
        generator = _generator(self.seed, index)
        tokens = torch.randint(0, 32, (12, 25), generator=generator)
        for place in range(2, 25):
            odds = self.table[tokens[:, place - 2], tokens[:, place - 1]]
            tokens[:, place] = torch.multinomial(odds, 1, generator=generator)[:, 0]
        return tokens[:, :-1], tokens[:, 1:]

    def strain(self):
        """Queries as large as keys are small: the same model, at the edge of what fp16 can hold."""
        attention = self.model.blocks[1].attention
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        with torch.no_grad():
            largest = largest_of(self.model.blocks[1].norm1, self, lambda x: x @ weight[:32].T + bias[:32])
            for parameter in (weight, bias):
                parameter[:32] *= HALF_EDGE / largest
                parameter[32:64] /= HALF_EDGE / largest

    def corrupted(self, index):
        """Another language's bytes: one letter, over and over, that says nothing of the next."""
        x, y = self.batch(index)
        return torch.full_like(x, 31), (y * 7 + 3) % 5

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]).float().flatten(0, 1), batch[1].flatten())


class Perceptron(nn.Module):
    def __init__(self, normalised=True, depth=8, width=32):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16 if i == 0 else width, width) for i in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if normalised else nn.Identity() for _ in range(depth))
        self.head = nn.Linear(width, 4)
        if not normalised:
            with torch.no_grad():
                for layer in self.layers:
                    layer.weight.normal_(0, 0.5 / width**0.5)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms):
            x = norm(layer(x)).relu()
        return self.head(x)


class PerceptronTask:
    """Which of four random centres a point is nearest to."""

    rate = 1e-3
    bad_rate = 0.15
    clip = 15.0

    def __init__(self, seed, normalised, **shape):
        self.seed = seed
        self.model = Perceptron(normalised, **(shape if normalised else {"depth": 16}))
        self.centres = torch.randn(4, 16, generator=_generator(seed, -1))

    def batch(self, index):
        x = torch.randn(32, 16, generator=_generator(self.seed, index))
        return x, torch.cdist(x, self.centres).argmin(1)

    def strain(self):
        """Activations before a norm, which divides their size out: the same model, at the edge of what fp16 can hold."""
        layer = self.model.layers[2]
        with torch.no_grad():
            factor = HALF_EDGE / largest_of(layer, self, lambda x: x)
            layer.weight *= factor
            layer.bias *= factor

    def corrupted(self, index):
        """Rows in another unit, with labels of other rows."""
        x, y = self.batch(index)
        return x * 60 + 20, y.roll(7)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]).float(), batch[1])


class HalfTask(PerceptronTask):
    """The same in fp16, shallow, with a dynamic loss scale."""

    bad_rate = 0.6

    def __init__(self, seed, normalised):
        super().__init__(seed, normalised, depth=6, width=48)


TASKS = {"rnn": RecurrentTask, "transformer": TransformerTask, "mlp": PerceptronTask, "fp16": HalfTask}
