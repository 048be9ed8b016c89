"""A look at what ranks hold twice: whether it is the same, as replicas of one tensor are.

Ranks that bind the same elements of a tensor of one name are taken for replicas. Where they are not, because nobody averaged
the gradients or each rank has an expert of its own under the same name, every norm would be wrong and nothing else would
say so. Looked at once, in the first step after a bind.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence

import torch

from ._layout_sources import Piece
from ._ranks import Ranks
from ._slots import Slot

_log = logging.getLogger("gradwarden")

# As the audit's: replicas that were computed apart differ in their last bits.
_TOLERANCE = 1e-3


def warn_of_differing(ranks: Ranks, slots: Sequence[Slot]) -> None:
    """Collective. Logs, on the first rank that holds them, the tensors whose norms differ between ranks."""
    if ranks.size == 1:
        return
    mine = [(_key(slot.piece, slot.name), _norm(slot)) for slot in slots]
    lowest: dict[int, float] = {}
    highest: dict[int, float] = {}
    first: dict[int, int] = {}
    for rank, keys_and_norms in enumerate(_gathered(ranks, mine)):
        for key, norm in keys_and_norms:
            lowest[key] = min(norm, lowest.get(key, norm))
            highest[key] = max(norm, highest.get(key, norm))
            first.setdefault(key, rank)
    differing = [
        slot.name
        for slot, (key, _) in zip(slots, mine)
        if first[key] == ranks.rank and highest[key] - lowest[key] > _TOLERANCE * highest[key]
    ]
    if differing:
        _log.warning(
            "gradients that several ranks hold under one name, and that are taken for replicas, differ between them (%s; "
            "%d in all): average them before step(), or tell experts and the like apart with distinct=",
            ", ".join(differing[:3]),
            len(differing),
        )


def _key(piece: Piece, name: str) -> int:
    """The same on two ranks if, and most probably only if, they hold the same elements."""
    place = (name, piece.total, piece.offset, piece.count, piece.shape, piece.start, piece.extent)
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@torch.no_grad()
def _norm(slot: Slot) -> float:
    gradient = slot.source.grad  # type: ignore[attr-defined]
    if gradient is None:
        return 0.0
    wide = None if gradient.device.type == "mps" else torch.float64
    norm: float = torch.linalg.vector_norm(gradient, dtype=wide).item()
    return norm if norm < float("inf") else 0.0  # a NaN is another matter


def _gathered(ranks: Ranks, mine: list[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """Every rank's pairs. Eight bytes for each number, as there may be many of both tensors and ranks."""
    packed = torch.empty(2 * len(mine), dtype=torch.int64)
    packed[::2] = torch.tensor([key for key, _ in mine], dtype=torch.int64)
    packed[1::2] = torch.tensor([norm for _, norm in mine], dtype=torch.float64).view(torch.int64)
    for part in ranks.gather(packed):
        keys, norms = part[::2].tolist(), part[1::2].contiguous().view(torch.float64).tolist()
        yield list(zip(keys, norms))
