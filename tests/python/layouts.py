"""The same network laid out in each of the ways that the guard has to find out, on four ranks.

A layout is a class with: `model`, what is bound (`tensors`, `hints`), the data-parallel index of this rank (`index` of
`parts`), an `optimizer`, and `parameters()`: all whole parameters by name, gathered without the guard's code.
"""

import contextlib
import functools

import networks
import torch
import torch.distributed as dist
from networks import Block
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, ShardingStrategy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

LEARNING_RATE = 1.0


class Layout:
    def __init__(self, rank, world, dtype):
        self.rank, self.world, self.dtype = rank, world, dtype
        self.index, self.parts = rank, world
        self.hints = {}
        self.model = self.wrap(networks.network(dtype))
        self.tensors = self.model
        self.optimizer = self.make_optimizer()

    def wrap(self, network):
        return network

    def make_optimizer(self):
        return torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE)

    def loss(self, batch):
        return networks.loss_of(self.model, batch)

    def backward(self, batch):
        loss = self.loss(networks.part(batch, self.index, self.parts))
        loss.backward()
        return loss

    def torch_norm(self):
        """Of torch's own clip_grad_norm_, which leaves the gradients as they are at this limit; None: it does not say."""
        total = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1e9)
        return (total.full_tensor() if isinstance(total, DTensor) else total).item()

    def parameters(self):
        whole = {}
        for name, parameter in self.model.named_parameters():
            tensor = parameter.detach()
            name = name.replace("_orig_mod.", "").removeprefix("module.")
            whole[name] = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()
        return whole

    def local_gradients(self):
        """What this rank holds, for a test to spoil."""
        tensors = [p.grad for p in self.model.parameters() if p.grad is not None]
        return [t for t in (t.to_local() if isinstance(t, DTensor) else t for t in tensors) if t.numel()]

    def local_parameters(self):
        tensors = [p.detach() for p in self.model.parameters()]
        return [(t.to_local() if isinstance(t, DTensor) else t).clone() for t in tensors]


class Ddp(Layout):
    def wrap(self, network):
        return DistributedDataParallel(network)


class DdpCompiledNames(Ddp):
    """torch.compile around DDP, checkpoint wrappers within: names with more than one wrapper."""

    def wrap(self, network):
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

        network.blocks[0] = checkpoint_wrapper(network.blocks[0])
        return torch.compile(DistributedDataParallel(network), backend="eager")

    def parameters(self):
        return {name.replace("module.", "").replace("_checkpoint_wrapped_", ""): p for name, p in super().parameters().items()}


class Zero(Ddp):
    def make_optimizer(self):
        return ZeroRedundancyOptimizer(self.model.parameters(), torch.optim.SGD, lr=LEARNING_RATE)


class Fsdp1(Layout):
    original = True
    strategy = ShardingStrategy.FULL_SHARD
    keywords = {}

    def wrap(self, network):
        return FullyShardedDataParallel(
            network,
            sharding_strategy=self.strategy,
            auto_wrap_policy=ModuleWrapPolicy({Block}),
            use_orig_params=self.original,
            device_id=torch.device("cpu"),
            **self.keywords,
        )

    def torch_norm(self):
        # torch takes it in float32, and refuses what is wider.
        return self.model.clip_grad_norm_(1e9).item() if self.dtype == torch.float32 else None

    def parameters(self):
        with FullyShardedDataParallel.summon_full_params(self.model, writeback=False):
            return {
                name.replace("_fsdp_wrapped_module.", ""): p.detach().clone() for name, p in self.model.named_parameters()
            }


class Fsdp1Flat(Fsdp1):
    original = False


class Fsdp1GradOp(Fsdp1):
    strategy = ShardingStrategy.SHARD_GRAD_OP


class Fsdp1NoShard(Fsdp1):
    strategy = ShardingStrategy.NO_SHARD


class Fsdp1Hybrid(Fsdp1Flat):
    strategy = ShardingStrategy.HYBRID_SHARD

    def wrap(self, network):
        self.keywords = {"device_mesh": init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))}
        return super().wrap(network)


class Fsdp2(Layout):
    shape, names = (), ("dp",)
    policy = MixedPrecisionPolicy()

    def wrap(self, network):
        mesh = init_device_mesh("cpu", self.shape or (self.world,), mesh_dim_names=self.names)
        for block in network.blocks:
            fully_shard(block, mesh=mesh, mp_policy=self.policy)
        return fully_shard(network, mesh=mesh, mp_policy=self.policy)


class Fsdp2LowPrecision(Fsdp2):
    """Computes and reduces in bfloat16; the gradients are float32 again. No reference in float32 comes near."""

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)


class Hsdp(Fsdp2):
    shape, names = (2, 2), ("replicate", "shard")


def tensor_parallel(network, mesh, sequence=False, tied=True):
    """`sequence`: the norms work on a part of the sequence each, so that their gradients are sums over the ranks."""
    inner = {
        "attention.q": ColwiseParallel(),
        "attention.k": ColwiseParallel(),
        "attention.v": ColwiseParallel(),
        "attention.o": RowwiseParallel(output_layouts=Shard(1) if sequence else Replicate()),
        "mlp.up": ColwiseParallel(),
        "mlp.down": RowwiseParallel(output_layouts=Shard(1) if sequence else Replicate()),
    }
    if sequence:
        gathered = functools.partial(PrepareModuleInput, input_layouts=Shard(1), desired_input_layouts=Replicate())
        inner |= {"norm1": SequenceParallel(), "norm2": SequenceParallel(), "attention": gathered(), "mlp": gathered()}
    for block in network.blocks:
        parallelize_module(block, mesh, inner)
    outer = {
        "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1) if sequence else Replicate()),
        "head": ColwiseParallel(
            input_layouts=Shard(1) if sequence else Replicate(), output_layouts=Replicate(), use_local_output=True
        ),
    }
    if sequence:
        outer["norm"] = SequenceParallel()
    parallelize_module(network, mesh, outer)
    if tied:  # both are cut along the vocabulary; each had become its own
        network.head.weight = network.embed.weight
    return network


class Tp(Layout):
    """Four ranks, the same data."""

    sequence = False

    def wrap(self, network):
        self.index, self.parts = 0, 1
        return tensor_parallel(network, init_device_mesh("cpu", (4,), mesh_dim_names=("tp",)), self.sequence)

    def torch_norm(self):
        # The norms' parameters are plain tensors here, and torch does not add those to DTensors. Nor, as below, DTensors of
        # different meshes.
        with contextlib.suppress(RuntimeError):
            return super().torch_norm()


class TpSequence(Tp):
    sequence = True

    def wrap(self, network):
        self.index, self.parts = 0, 1
        return tensor_parallel(network, init_device_mesh("cpu", (2,), mesh_dim_names=("tp",)), True)


class Fsdp2Tp(Layout):
    sequence = False

    def wrap(self, network):
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        self.index, self.parts = mesh["dp"].get_local_rank(), 2
        tensor_parallel(network, mesh["tp"], self.sequence)
        for block in network.blocks:
            fully_shard(block, mesh=mesh["dp"])
        return fully_shard(network, mesh=mesh["dp"])

    def torch_norm(self):
        with contextlib.suppress(RuntimeError):
            return super().torch_norm()


class Fsdp2TpSequence(Fsdp2Tp):
    sequence = True


class Partition(Layout):
    """ZeRO by hand: a flat copy of all parameters, of which each rank keeps, reduces and steps a range, with padding."""

    def wrap(self, network):
        self.network = network
        self.named = dict(network.named_parameters())
        self.total = sum(p.numel() for p in self.named.values())
        self.size = -(-self.total // self.world)
        self.flat = torch.nn.Parameter(self.cut(torch.cat([p.detach().flatten() for p in self.named.values()])))
        return network

    def cut(self, flat):
        padded = torch.nn.functional.pad(flat, (0, self.size * self.world - self.total))
        return padded[self.rank * self.size :][: self.size].clone()

    def make_optimizer(self):
        import gradwarden

        self.tensors = [("flat", self.flat)]
        self.hints = {"layout": {"flat": gradwarden.Shard(whole=self.total, start=self.rank * self.size)}}
        return torch.optim.SGD([self.flat], lr=LEARNING_RATE)

    def backward(self, batch):
        loss = super().backward(batch)
        flat = torch.cat([p.grad.flatten() for p in self.named.values()])
        self.network.zero_grad()
        dist.all_reduce(flat)
        self.flat.grad = self.cut(flat / self.world)
        self.flat.grad[max(0, self.total - self.rank * self.size) :] = 1e6  # padding: nobody's gradient
        return loss

    def torch_norm(self):
        return None

    def local_gradients(self):
        return [self.flat.grad]

    def local_parameters(self):
        return [self.flat.detach().clone()]

    def parameters(self):
        parts = [torch.empty_like(self.flat) for _ in range(self.world)]
        dist.all_gather(parts, self.flat.detach())
        sizes = [p.numel() for p in self.named.values()]
        pieces = torch.cat(parts)[: self.total].split(sizes)
        return {name: piece.view(p.shape) for (name, p), piece in zip(self.named.items(), pieces)}

    def step_done(self):
        with torch.no_grad():
            for name, whole in self.parameters().items():
                self.named[name].copy_(whole)


class _Sum(torch.autograd.Function):
    """Sums over the group in the forward pass (`forward`), or in the backward pass."""

    @staticmethod
    def forward(ctx, x, group, ahead):
        ctx.group, ctx.ahead = group, ahead
        if ahead:
            x = x.clone()
            dist.all_reduce(x, group=group)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        if not ctx.ahead:
            gradient = gradient.clone()
            dist.all_reduce(gradient, group=ctx.group)
        return gradient, None, None


class Experts(torch.nn.Module):
    """Two experts that each see every token; their outputs are summed. A rank of `group` has one, or all without."""

    group = None

    def __init__(self):
        super().__init__()
        self.experts = torch.nn.ModuleList([networks.Mlp(), networks.Mlp()])

    def forward(self, x):
        if self.group is None:
            return sum(expert(x) for expert in self.experts)
        return _Sum.apply(self.expert(_Sum.apply(x, self.group, False)), self.group, True)


class ExpertParallel(Layout):
    """Two ranks share the experts, two such pairs the data; the trainer averages the gradients itself."""

    def __init__(self, rank, world, dtype):
        self.mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "ep"))
        super().__init__(rank, world, dtype)
        self.index, self.parts = self.mesh["dp"].get_local_rank(), 2
        self.hints = {"distinct": {"*.expert.*": self.mesh["ep"]}}

    def wrap(self, network):
        network = networks.network(self.dtype, Experts)
        for block in network.blocks:
            block.mlp.group = self.mesh["ep"].get_group()
            block.mlp.expert = block.mlp.experts[self.mesh["ep"].get_local_rank()]
            del block.mlp.experts
        return network

    def backward(self, batch):
        loss = super().backward(batch)
        for parameter in self.model.parameters():
            dist.all_reduce(parameter.grad, group=self.mesh["dp"].get_group())
            parameter.grad /= 2
        return loss

    def torch_norm(self):
        return None

    def parameters(self):
        whole, group = {}, self.mesh["ep"].get_group()
        for name, parameter in self.model.named_parameters():
            if ".expert." not in name:
                whole[name] = parameter.detach().clone()
                continue
            both = [torch.empty_like(parameter) for _ in range(2)]
            dist.all_gather(both, parameter.detach(), group=group)
            whole |= {name.replace(".expert.", f".experts.{i}."): tensor for i, tensor in enumerate(both)}
        return whole


class Interleaved(Layout):
    """Placements that no wrapper makes: strided, cut twice, along the second dimension; what is reduced by hand."""

    def wrap(self, network):
        from torch.distributed.tensor.placement_types import _StridedShard

        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
        self.network, self.places = network, {}
        for i, (name, parameter) in enumerate(network.named_parameters()):
            d = i % parameter.ndim
            kinds = ((Shard(0), Shard(d)), (Replicate(), Shard(d)), (_StridedShard(d, split_factor=4), Replicate()))
            placed = distribute_tensor(parameter.detach(), mesh, kinds[i % 3])
            self.places[name] = torch.nn.Parameter(placed)
        self.mesh = mesh
        return network

    def make_optimizer(self):
        self.tensors = list(self.places.items())
        return torch.optim.SGD(self.places.values(), lr=LEARNING_RATE)

    def backward(self, batch):
        loss = super().backward(batch)
        for name, parameter in self.network.named_parameters():
            dist.all_reduce(parameter.grad)
            place = self.places[name]
            place.grad = distribute_tensor(parameter.grad / self.world, self.mesh, place.placements)
            parameter.grad = None
        return loss

    def torch_norm(self):
        total = torch.nn.utils.clip_grad_norm_(self.places.values(), 1e9)
        return total.full_tensor().item()

    def local_gradients(self):
        return [p.grad.to_local() for p in self.places.values() if p.grad.to_local().numel()]

    def local_parameters(self):
        with torch.no_grad():
            return [p.to_local().clone() for p in self.places.values()]

    def parameters(self):
        return {name: place.detach().full_tensor() for name, place in self.places.items()}

    def step_done(self):
        with torch.no_grad():
            for name, whole in self.parameters().items():
                self.network.get_parameter(name).copy_(whole)


LAYOUTS = {
    "one process": (Layout, 1),
    "DDP": (Ddp, 4),
    "DDP, compiled and checkpointed": (DdpCompiledNames, 2),
    "DDP, ZeroRedundancyOptimizer": (Zero, 4),
    "ZeRO by hand": (Partition, 4),
    "FSDP1, original parameters": (Fsdp1, 4),
    "FSDP1, flat parameters": (Fsdp1Flat, 4),
    "FSDP1, SHARD_GRAD_OP": (Fsdp1GradOp, 4),
    "FSDP1, NO_SHARD": (Fsdp1NoShard, 2),
    "FSDP1, HYBRID_SHARD 2 x 2": (Fsdp1Hybrid, 4),
    "FSDP2": (Fsdp2, 4),
    "FSDP2, HSDP 2 x 2": (Hsdp, 4),
    "TP": (Tp, 4),
    "TP, sequence parallel": (TpSequence, 2),
    "FSDP2 + TP 2 x 2": (Fsdp2Tp, 4),
    "FSDP2 + TP 2 x 2, sequence parallel": (Fsdp2TpSequence, 4),
    "other placements 2 x 2": (Interleaved, 4),
    "experts 2 x data 2": (ExpertParallel, 4),
}
