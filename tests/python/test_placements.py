"""Where a rank's part of a tensor lies, from its placements alone, against tensors that are really cut."""

import itertools
import random
import unittest

import torch
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from gradwarden import Error, _layout
from gradwarden._layout_dtensor import boxes_of, layout_of
from gradwarden._layout_sources import WholeSource, is_dense
from gradwarden._names import named_tensors, taking_gradients


class FakeMesh:
    """A mesh as one of its ranks sees it."""

    def __init__(self, shape, coordinate):
        self.shape, self._coordinate = shape, coordinate

    def get_coordinate(self):
        return self._coordinate


def chunk(tensor, pieces, dim):
    """As torch.chunk, with empty ones where it gives fewer."""
    parts = list(tensor.chunk(pieces, dim))
    return parts + [tensor.narrow(dim, 0, 0)] * (pieces - len(parts))


def local_of(tensor, mesh, placements, right_to_left):
    """Cuts the tensor as the placements say; strided ones last and plainly if `right_to_left`."""
    order = sorted(range(len(placements)), key=lambda m: right_to_left and isinstance(placements[m], _StridedShard))
    for m in order:
        placement, at = placements[m], mesh.get_coordinate()[m]
        if isinstance(placement, Replicate):
            continue
        d, ranks = placement.dim, mesh.shape[m]
        if isinstance(placement, _StridedShard) and not right_to_left:
            pieces = [chunk(piece, ranks, d)[at] for piece in chunk(tensor, placement.split_factor, d)]
            tensor = torch.cat(pieces, d)
        else:
            tensor = chunk(tensor, ranks, d)[at]
    return tensor


class PlacementTest(unittest.TestCase):
    def check(self, shape, mesh_shape, placements, right_to_left=False):
        whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
        seen = []
        for coordinate in itertools.product(*map(range, mesh_shape)):
            mesh = FakeMesh(mesh_shape, coordinate)
            local = local_of(whole, mesh, placements, right_to_left)
            boxes = boxes_of("t", layout_of("t", torch.Size(shape), mesh, placements, local.shape))
            found = [whole[tuple(slice(b, b + e) for b, e in zip(*box))].flatten() for box in boxes]
            found = torch.cat(found) if found else whole.new_zeros(0)
            self.assertEqual(found.tolist(), local.flatten().tolist(), (shape, mesh_shape, placements, coordinate))
            seen.append(found)
        self.assertEqual(sorted(set(torch.cat(seen).tolist())), whole.flatten().tolist())

    def test_random_placements_give_the_elements_of_the_local_tensor_in_its_order(self):
        seed = 20
        draw = random.Random(seed)
        for _ in range(400):
            shape = [draw.randint(1, 9) for _ in range(draw.randint(1, 3))]
            mesh_shape = tuple(draw.randint(1, 4) for _ in range(draw.randint(1, 3)))
            # Factors above 4, so that none is the product of what stands to its right, which means something else.
            kinds = [Replicate] + [lambda: Shard(draw.randrange(len(shape)))] * 2
            kinds.append(lambda: _StridedShard(draw.randrange(len(shape)), split_factor=draw.choice((5, 7))))
            placements = tuple(draw.choice(kinds)() for _ in mesh_shape)
            with self.subTest(seed=seed, shape=shape, mesh=mesh_shape, placements=placements):
                self.check(shape, mesh_shape, placements)

    def test_fully_sharded_tensor_parallel_ones_are_cut_right_to_left_also_where_sizes_are_uneven(self):
        for rows, dp, tp in itertools.product(range(1, 24), (2, 3, 4), (2, 3, 4)):
            self.check((rows, 2), (dp, tp), (_StridedShard(0, split_factor=tp), Shard(0)), right_to_left=True)
        # HSDP over tensor and expert parallel.
        self.check((23, 3), (2, 2, 2, 3), (Replicate(), _StridedShard(0, split_factor=6), Shard(0), Shard(0)), True)

    def test_a_local_tensor_of_another_size_than_the_placements_say_is_refused(self):
        with self.assertRaisesRegex(Error, "'t'.*has \\(3, 2\\) of \\(6, 2\\), but the local tensor is \\(4, 2\\)"):
            layout_of("t", torch.Size((6, 2)), FakeMesh((2,), (0,)), (Shard(0),), (4, 2))

    def test_a_placement_that_is_not_known_is_refused(self):
        with self.assertRaisesRegex(Error, "is placed as P"):
            layout_of("t", torch.Size((6,)), FakeMesh((2,), (0,)), (Partial(),), (6,))

    def test_a_tensor_in_too_many_pieces_is_refused(self):
        with self.assertRaisesRegex(Error, "more than 4096 pieces"):
            boxes_of("t", [[(0, 5000)], [(0, 1), (2, 1)]])


def pieces_of(pairs, layout=None, distinct=None):
    sources = _layout.find(taking_gradients(named_tensors(pairs)), pairs, _layout.hints_of(layout, distinct))
    return [piece for source in sources for piece in source.pieces]


class NameTest(unittest.TestCase):
    def names(self, *names, distinct=None):
        pairs = [(name, torch.nn.Parameter(torch.ones(2))) for name in names]
        return [piece.name for piece in pieces_of(pairs, distinct=distinct)]

    def test_what_wrappers_add_is_left_out(self):
        wrapped = "_orig_mod.module._fsdp_wrapped_module.block._checkpoint_wrapped_module.weight"
        self.assertEqual(self.names(wrapped, "module.bias"), ["block.weight", "bias"])

    def test_a_module_called_module_keeps_its_name_inside_and_beside_others(self):
        self.assertEqual(self.names("encoder.module.weight"), ["encoder.module.weight"])
        self.assertEqual(self.names("module.weight", "weight"), ["module.weight", "weight"])

    def test_labels_tell_parameters_of_the_same_name_apart(self):
        found = self.names("a.experts.0.w", "a.gate", distinct={"*.experts.*": 3, "*": "stage1"})
        self.assertEqual(found, ["a.experts.0.w@3", "a.gate@stage1"])

    def test_a_label_that_is_none_is_refused(self):
        with self.assertRaisesRegex(Error, "distinct: 'w' is given"):
            self.names("w", distinct={"*": 1.5})

    def test_a_tied_tensor_counts_once(self):
        tied = torch.nn.Parameter(torch.ones(3))
        self.assertEqual([piece.name for piece in pieces_of([("embed", tied), ("head", tied)])], ["embed"])


class SourceTest(unittest.TestCase):
    def test_a_gradient_in_another_order_of_dimensions_is_read_where_it_lies(self):
        kernel = torch.nn.Parameter(torch.ones(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
        kernel.grad = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        before = kernel.grad
        self.assertEqual(WholeSource("k", kernel).gradient().data_ptr(), before.data_ptr())
        self.assertIs(kernel.grad, before)

    def test_a_gradient_with_gaps_is_replaced_by_a_dense_one(self):
        parameter = torch.nn.Parameter(torch.ones(4, 3))
        gaps = torch.randn(4, 6)[:, ::2]
        parameter.grad = gaps
        found = WholeSource("p", parameter).gradient()
        self.assertTrue(is_dense(found))
        self.assertEqual(found.data_ptr(), parameter.grad.data_ptr())
        self.assertTrue(torch.equal(parameter.grad, gaps))

    def test_a_hint_with_other_dimensions_than_the_tensor_is_refused(self):
        parameter = torch.nn.Parameter(torch.ones(4, 3))
        for whole, text in (((8, 3, 2), "has 2 dimensions"), ("all", "has 2 dimensions")):
            with self.assertRaisesRegex(Error, text):
                pieces_of([("p", parameter)], {"p": _layout.Shard(whole=whole)})
        with self.assertRaisesRegex(Error, "allowed: gradwarden.Shard"):
            pieces_of([("p", parameter)], {"*": 7})

    def test_a_box_hint_places_the_local_tensor(self):
        parameter = torch.nn.Parameter(torch.ones(4, 3))
        (piece,) = pieces_of([("p", parameter)], {"p": _layout.Shard(whole=(8, 3), start=(4, 0))})
        self.assertEqual((piece.total, piece.shape, piece.start, piece.extent), (24, (8, 3), (4, 0), (4, 3)))


if __name__ == "__main__":
    unittest.main()
