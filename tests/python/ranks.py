"""Runs a function as several ranks: processes that meet through a file and talk gloo over loopback."""

import os
import tempfile
import time
import unittest

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

DEADLINE_S = 200


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
            context = multiprocessing.get_context("spawn")
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
