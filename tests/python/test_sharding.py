"""What else a guard of sharded parameters must do: refuse, warn, leave alone."""

import contextlib
import logging
import unittest

import layouts
import networks
import torch
import torch.distributed as dist
from ranks import ManyRanksTest
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import gradwarden


@contextlib.contextmanager
def warnings_of_guard():
    """What the package logs."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("gradwarden")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def error_of(function, *arguments):
    try:
        function(*arguments)
    except gradwarden.Error as error:
        return str(error)
    return ""


def adam_state(optimizer):
    tensors = []
    for state in optimizer.state.values():
        for value in state.values():
            tensors.append((value.to_local() if isinstance(value, DTensor) else value).detach().clone())
    return tensors


def skip_under_fsdp2(rank, world):
    """Two steps that fill Adam's state, then one with a NaN on one rank."""
    layout = layouts.Fsdp2(rank, world, torch.float32)
    optimizer = torch.optim.AdamW(layout.model.parameters(), lr=0.1)
    guard = gradwarden.Guard(layout.model, max_norm=0.25)
    for step in range(3):
        layout.backward(networks.tokens(step))
        if step == 2 and rank == 1:
            layout.local_gradients()[0].view(-1)[0] = float("inf")
        before = layout.local_parameters() + adam_state(optimizer)
        outcome = guard.step()
        if outcome.should_update:
            optimizer.step()
        after = layout.local_parameters() + adam_state(optimizer)
        same = len(before) == len(after) and all(
            a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(before, after)
        )
        optimizer.zero_grad()
    return outcome.decision, outcome.reason, same, len(before)


def low_precision(rank, world):
    """Norms in bfloat16 computation, against the gradients as they were gathered."""
    found = []
    for kind, dtype in ((layouts.Fsdp2LowPrecision, torch.float32), (layouts.Fsdp2, torch.bfloat16)):
        layout = kind(rank, world, dtype)
        guard = gradwarden.Guard(layout.model, max_norm=0.25)
        layout.backward(networks.tokens(0))
        gathered = [p.grad.full_tensor() for p in layout.model.parameters()]
        found.append((guard.step().grad_norm, networks.norm_of(gathered), str(gathered[0].dtype)))
    return found


def flat_errors(rank, world):
    """FSDP1 by its parameters alone, and gradients that are not reduced yet."""
    layout = layouts.Fsdp1(rank, world, torch.float32)
    guard = gradwarden.Guard()
    texts = [error_of(guard.bind, layout.model.named_parameters())]
    for kind in (layouts.Fsdp1, layouts.Fsdp1Flat):
        layout = kind(rank, world, torch.float32)
        guard = gradwarden.Guard(layout.model)
        with layout.model.no_sync():
            layout.backward(networks.tokens(0))
        texts.append(error_of(guard.step))
    return texts


def accumulated(rank, world, name):
    """Two passes before a step, the first of them not reduced where torch offers that."""
    layout = layouts.LAYOUTS[name][0](rank, world, torch.float64)
    guard = gradwarden.Guard(layout.tensors)
    with layout.model.no_sync() if hasattr(layout.model, "no_sync") else contextlib.nullcontext():
        layout.backward(networks.tokens(0))
    layout.backward(networks.tokens(1))
    return guard.step().grad_norm


def accumulated_reference():
    model = networks.network(torch.float64)
    for step in range(2):
        networks.loss_of(model, networks.tokens(step)).backward()
    return networks.norm_of([p.grad for p in model.parameters()])


def flat_over_tensor_parallel(rank, world):
    """FSDP1 around a network that is tensor parallel: ranges of boxes. It would untie an embedding by itself."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    network = layouts.tensor_parallel(networks.untied(networks.network(torch.float64)), mesh["tp"], tied=False)
    model = FullyShardedDataParallel(
        network, device_mesh=mesh["dp"], use_orig_params=True, device_id=torch.device("cpu")
    )
    guard = gradwarden.Guard(model)
    networks.loss_of(model, networks.part(networks.tokens(0), mesh["dp"].get_local_rank(), 2)).backward()
    norm = guard.step().grad_norm
    return norm, len({slot.piece.shape for slot in guard._slots})


def placed_otherwise(rank, world):
    """Gradients whose placements are not their parameter's: sums over ranks, whole ones, other dimensions, and empty."""
    mesh = init_device_mesh("cpu", (world,))
    generator = torch.Generator().manual_seed(3)
    named, wholes = [], []
    for i, (place, grad_place, rows) in enumerate(
        (
            (Replicate(), Partial(), 6),
            (Shard(0), Partial(), 6),
            (Shard(1), Replicate(), 6),
            (Shard(0), Shard(1), 6),
            (Shard(0), Partial(), world - 1),
        )
    ):
        whole = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
        parameter = torch.nn.Parameter(distribute_tensor(torch.zeros_like(whole), mesh, [place]))
        if isinstance(grad_place, Partial):
            parameter.grad = DTensor.from_local(whole * (rank + 1) / sum(range(1, world + 1)), mesh, [grad_place])
        else:
            parameter.grad = distribute_tensor(whole, mesh, [grad_place])
        named.append((f"t{i}", parameter))
        wholes.append(whole)
    guard = gradwarden.Guard(max_norm=1.0)
    guard.bind(named)
    norm = guard.step().grad_norm
    expected = networks.norm_of(wholes)
    off = max((p.grad.full_tensor() * expected - whole).abs().max().item() for (_, p), whole in zip(named, wholes))
    placed = all(p.grad.placements == p.placements for _, p in named)
    return norm, expected, off, placed


def transposed(rank, world):
    """Gradients whose memory is in another order of dimensions than row-major, of DTensors and plain, and one with gaps."""
    mesh = init_device_mesh("cpu", (world,))
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # Strides of the whole that say one thing, and local parts that are row-major; then local parts that are not.
    rows = torch.nn.Parameter(distribute_tensor(torch.zeros(8, 6, dtype=torch.float64).t(), mesh, [Shard(0)]))
    rows.grad = distribute_tensor(whole.t().contiguous().t(), mesh, [Shard(0)])
    columns = torch.nn.Parameter(distribute_tensor(torch.zeros(6, 8, dtype=torch.float64), mesh, [Shard(1)]))
    part = whole.chunk(world, 1)[rank].t().contiguous().t()
    columns.grad = DTensor.from_local(part, mesh, [Shard(1)])
    plain = torch.nn.Parameter(torch.zeros(6, 8, dtype=torch.float64))
    plain.grad = whole.t().contiguous().t()
    gaps = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    gaps.grad = whole[:3, ::2][:, :3]
    guard = gradwarden.Guard([("rows", rows), ("columns", columns), ("plain", plain), ("gaps", gaps)], max_norm=1.0)
    where = [rows.grad.to_local().data_ptr(), plain.grad.data_ptr()]
    norm = guard.step().grad_norm
    in_place = where == [rows.grad.to_local().data_ptr(), plain.grad.data_ptr()]
    expected = networks.norm_of([whole, whole, whole, whole[:3, ::2][:, :3]])
    clipped = [rows.grad.full_tensor(), columns.grad.full_tensor(), plain.grad, gaps.grad]
    wanted = [whole, whole, whole, whole[:3, ::2][:, :3]]
    off = max((a * expected - b).abs().max().item() for a, b in zip(clipped, wanted))
    return norm, expected, off, in_place


def strangers(rank, world, told):
    """Each rank has gradients of its own, under the same names; what is logged in two steps, with a hint or without."""
    named = [(name, torch.nn.Parameter(torch.zeros(4))) for name in ("shared", "experts.w", "experts.b")]
    for name, parameter in named:
        parameter.grad = torch.full((4,), 1.0 if name == "shared" else 1.0 + rank)
    with warnings_of_guard() as said:
        guard = gradwarden.Guard(distinct={"experts.*": dist.group.WORLD} if told else None)
        guard.bind(named)
        norms = [guard.step().grad_norm for _ in range(2)]
    return said, norms[0]


def some_ranks(rank, world):
    """A guard of some of the ranks, as each replica of a model that trains alone has."""
    groups = [dist.new_group([0, 1], backend="gloo"), dist.new_group([2, 3], backend="gloo")]
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.full((2,), 1.0 + rank)
    guard = gradwarden.Guard(process_group=groups[rank // 2])
    guard.bind([("p", parameter)])
    return guard.step().grad_norm


ACCUMULATED = ("DDP", "FSDP1, original parameters", "FSDP1, flat parameters", "FSDP2")


class ShardingTest(ManyRanksTest):
    CASES = {
        2: [(low_precision,), (flat_errors,), (transposed,), (strangers, False), (strangers, True)]
        + [(accumulated, name) for name in ACCUMULATED],
        4: [(skip_under_fsdp2,), (flat_over_tensor_parallel,), (placed_otherwise,), (some_ranks,)],
    }

    def test_a_skip_under_fsdp2_leaves_parameters_and_moments_as_they_are_bit_for_bit(self):
        for decision, reason, same, tensors in self.of_ranks(4, skip_under_fsdp2):
            self.assertEqual((decision, reason, same), ("skip", "non_finite", True))
            self.assertGreater(tensors, 60)  # parameters and two moments of each

    def test_norms_of_low_precision_are_those_of_the_gradients_as_they_are(self):
        for ((norm, expected, dtype), (low_norm, low_expected, low_dtype)) in self.of_ranks(2, low_precision):
            self.assertEqual((dtype, low_dtype), ("torch.float32", "torch.bfloat16"))
            self.assertAlmostEqual(norm / expected, 1, delta=1e-6)
            self.assertAlmostEqual(low_norm / low_expected, 1, delta=1e-6)

    def test_flat_parameters_are_refused_where_their_layout_cannot_be_known(self):
        for by_names, original, flat in self.of_ranks(2, flat_errors):
            self.assertRegex(by_names, "give the FSDP module itself")
            self.assertRegex(original, "not reduced yet; call step.. after a backward pass outside no_sync")
            self.assertRegex(flat, "not reduced yet; call step.. after a backward pass outside no_sync")

    def test_accumulated_gradients_give_the_norm_of_their_sum(self):
        expected = accumulated_reference()
        for name in ACCUMULATED:
            for norm in self.of_ranks(2, accumulated, name):
                self.assertAlmostEqual(norm / expected, 1, delta=1e-12, msg=name)

    def test_flat_parameters_of_tensor_parallel_ones_are_ranges_of_boxes(self):
        model = networks.untied(networks.network(torch.float64))
        networks.loss_of(model, networks.tokens(0)).backward()
        expected = networks.norm_of([p.grad for p in model.parameters()])
        for norm, shapes in self.of_ranks(4, flat_over_tensor_parallel):
            self.assertAlmostEqual(norm / expected, 1, delta=1e-12)
            self.assertGreater(shapes, 1)

    def test_gradients_placed_otherwise_than_their_parameters_are_brought_to_them(self):
        for norm, expected, off, placed in self.of_ranks(4, placed_otherwise):
            self.assertAlmostEqual(norm / expected, 1, delta=1e-12)
            self.assertLess(off, 1e-5)  # the clip coefficient's own 1e-6
            self.assertTrue(placed)

    def test_gradients_in_any_order_of_dimensions_are_read_and_clipped(self):
        for norm, expected, off, in_place in self.of_ranks(2, transposed):
            self.assertAlmostEqual(norm / expected, 1, delta=1e-12)
            self.assertLess(off, 1e-5)
            self.assertTrue(in_place)

    def test_gradients_that_differ_between_ranks_under_one_name_are_told_once(self):
        ((first, _), (second, _)) = self.of_ranks(2, strangers, False)
        self.assertEqual(len(first), 1)
        self.assertRegex(first[0], "differ between them .experts.w, experts.b; 2 in all.*distinct=")
        self.assertEqual(second, [])  # the first rank that holds them says it

    def test_experts_that_are_told_apart_all_count(self):
        # Four ones that are shared; on rank 0 eight ones, on rank 1 eight twos.
        for said, norm in self.of_ranks(2, strangers, True):
            self.assertEqual(said, [])
            self.assertAlmostEqual(norm, (4 + 8 + 8 * 4) ** 0.5, delta=1e-12)

    def test_a_guard_of_some_ranks_knows_nothing_of_the_others(self):
        # Replicas that differ, as these do, count half each.
        expected = [(2 * (a + b) / 2) ** 0.5 for a, b in ((1, 4), (9, 16))]
        for norm, wanted in zip(self.of_ranks(4, some_ranks), (expected[0], expected[0], expected[1], expected[1])):
            self.assertAlmostEqual(norm, wanted, delta=1e-12)


if __name__ == "__main__":
    logging.basicConfig()
    unittest.main()
