"""Runs a function as several ranks: processes that meet through a file and talk gloo over loopback."""

import logging
import os
import tempfile
import time
import unittest

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

DEADLINE_S = 600


def _rank_main(rank, world, directory, function, arguments):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=world)
    result = function(rank, world, *arguments)
    torch.save(result, f"{directory}/result{rank}")
    dist.destroy_process_group()


class RanksTest(unittest.TestCase):
    def run_ranks(self, world, function, *arguments):
        """What `function(rank, world, *arguments)` returned on each rank; fails unless every rank ended by itself."""
        with tempfile.TemporaryDirectory() as directory:
            context = multiprocessing.get_context("forkserver")
            ranks = [
                context.Process(target=_rank_main, args=(rank, world, directory, function, arguments))
                for rank in range(world)
            ]
            for rank in ranks:
                rank.start()
            deadline = time.monotonic() + DEADLINE_S
            try:
                for rank in ranks:
                    rank.join(max(0, deadline - time.monotonic()))
                self.assertEqual([rank.exitcode for rank in ranks], [0] * world)
            finally:
                for rank in ranks:
                    if rank.is_alive():
                        rank.kill()
                        rank.join()
            return [torch.load(f"{directory}/result{rank}", weights_only=False) for rank in range(world)]


def _run_all(rank, world, cases):
    results = {}
    for function, *arguments in cases:
        try:
            results[(function.__name__, *arguments)] = function(rank, world, *arguments)
        except Exception:
            logging.exception("rank %d of %d: %s%s", rank, world, function.__name__, tuple(arguments))
            raise
    return results


class ManyRanksTest(RanksTest):
    """All functions that need a number of ranks run in the same processes: to start those takes the longest."""

    CASES = {}  # by number of ranks, a list of (function, *arguments)
    _results = {}

    def of_ranks(self, world, function, *arguments):
        """What each rank returned from one of CASES."""
        key = (type(self), world)
        if key not in self._results:
            self._results[key] = None  # if they fail, they fail once
            self._results[key] = self.run_ranks(world, _run_all, self.CASES[world])
        if self._results[key] is None:
            self.fail(f"the {world} ranks of these cases failed in an earlier test")
        return [of_rank[(function.__name__, *arguments)] for of_rank in self._results[key]]
