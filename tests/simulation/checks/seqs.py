"""Law 1: a shard's lane records carry the seqs 1, 2, 3 ... over both lanes, each once, in each lane rising."""

from itertools import pairwise

from ekko.schemas.blocks import Lane
from tests.simulation.lanes import RegionLog


def check_seqs_contiguous(log: RegionLog, first: int = 1) -> None:
    """Every seq once, every `previous` right, both lanes in rising order, and nothing that ever goes back.

    A seeded region begins at a later seq, and the copies in its seed, which settle nothing, stand in no order.
    """
    for shard, sent in enumerate(log.shards):
        where = f"region {log.region}, shard {shard}"
        seqs = [entry.block.seq for entry in sent]
        assert seqs == list(range(first, len(seqs) + first)), f"{where}: seqs are {seqs}"
        for lane in Lane:
            mine = [entry for entry in sent if entry.lane is lane]
            offsets = [entry.offset for entry in mine]
            assert offsets == sorted(offsets), f"{where}: {lane} carries its seqs out of order"
            previous = [first - 1, *(entry.block.seq for entry in mine)]
            assert [entry.block.previous for entry in mine] == previous[:-1], f"{where}: {lane} has a wrong `previous`"
        settling = [entry for entry in sent if first == 1 or entry.block.settled.offset]
        for before, after in pairwise(settling):
            assert before.block.settled <= after.block.settled, f"{where}: settled goes back at seq {after.block.seq}"
            assert before.block.upto <= after.block.upto, f"{where}: upto goes back at seq {after.block.seq}"


def check_barriers_forwarded(log: RegionLog, last_epoch: int, *, seeded: bool = False) -> None:
    """Every barrier (from that of its seed on) is in the express lane exactly once, in order, on idle shards too."""
    for shard, sent in enumerate(log.shards):
        markers = [entry for entry in sent if entry.block.barrier is not None]
        assert all(entry.lane is Lane.EXPRESS for entry in markers)
        epochs = [entry.block.barrier.epoch for entry in markers if entry.block.barrier is not None]
        first = epochs[0] if seeded else 1
        assert epochs == list(range(first, last_epoch + 1)), f"region {log.region}, shard {shard}: markers are {epochs}"
