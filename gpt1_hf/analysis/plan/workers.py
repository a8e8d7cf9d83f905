"""Sharing the runs of a plan: among the processes of one `accelerate launch`, and among machines by `--shard i/n`."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch.distributed import PrefixStore, Store, rendezvous

from ...errors import UsageError


# Variables that a launcher sets for its processes. Without them, training uses a single process.
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Longest wait for a run of another process.
TIMEOUT = timedelta(days=30)


@dataclass
class Worker:
    """
    One of the processes that share a plan. Each trains whole runs alone: a run that several processes train has other
    batches, and therefore other results.
    """

    index: int = 0  # of this process among all
    count: int = 1  # of processes, over all shards
    per_shard: int = 1  # number of processes in this shard, which one launcher started
    store: Store | None = None  # through which the processes of a shard wait for one another

    @classmethod
    def join(cls, shard: str | None = None) -> "Worker":
        """
        Join the processes of the launcher that started this one, if one did. Afterwards this process trains alone: the
        launcher's variables are removed from its environment.

        Args:
            shard (`str`, *optional*):
                `i/n`: this is shard i of n, counted from 1.

        Raises:
            UsageError: if the shard has another form.
        """
        number, _, n_shards = (shard or "1/1").partition("/")
        if not (number.isdecimal() and n_shards.isdecimal() and 1 <= int(number) <= int(n_shards)):
            raise UsageError(f"--shard is i/n with i from 1 to n, such as 1/2, not {shard!r}")
        rank, per_shard, store = 0, int(os.environ.get("WORLD_SIZE", 1)), None
        if per_shard > 1:
            store, rank, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
            store = PrefixStore("plan", store)
            take_one_device(int(os.environ["LOCAL_RANK"]))
            for name in LAUNCHER_VARIABLES:
                os.environ.pop(name, None)
        return cls((int(number) - 1) * per_shard + rank, int(n_shards) * per_shard, per_shard, store)

    @property
    def is_first(self) -> bool:
        """Whether this is the first process of its shard, which writes the shared files."""
        return self.index % self.per_shard == 0

    def owns(self, number: int) -> bool:
        """Whether the run of that number belongs to this process."""
        return number % self.count == self.index

    def announce(self, event: str):
        """Let the other processes of the shard know that an event has happened."""
        if self.store is not None:
            self.store.set(event, "over")

    def wait_for(self, event: str, number: int):
        """Wait until the process that owns run `number` announces an event. Other shards are not waited for."""
        owner = number % self.count
        if self.store is not None and owner // self.per_shard == self.index // self.per_shard:
            self.store.wait([event], TIMEOUT)

    def wait_for_all(self, place: str = "the end"):
        """
        Wait until all processes of the shard are here; `place` differs from call to call. The first one leaves last:
        it may hold the store.
        """
        if self.store is None:
            return
        first = self.index - self.index % self.per_shard
        self.announce(f"arrived at {place} {self.index}")
        self.store.wait([f"arrived at {place} {first + rank}" for rank in range(self.per_shard)], TIMEOUT)
        self.announce(f"left {place} {self.index}")
        if self.is_first:
            self.store.wait([f"left {place} {first + rank}" for rank in range(self.per_shard)], TIMEOUT)


def take_one_device(local_rank: int):
    """Hide all GPUs but one, before CUDA is first used: Trainer spreads a run over all that it sees."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:
        visible = [str(number) for number in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[local_rank % len(visible)]
