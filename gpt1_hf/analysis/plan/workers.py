"""Who does which run of a plan: the processes of one `accelerate launch`, and machines by `--shard i/n`."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch.distributed import PrefixStore, Store, rendezvous

from ...errors import UsageError


# What a launcher tells its processes by. Without it, a training run is one of a single process.
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Longest time that one process waits for what another one trains.
PATIENCE = timedelta(days=30)


@dataclass
class Processes:
    """
    One process of those that share out a plan. Each does whole runs by itself: split over several, a run's batches,
    and so its results, would be others.

    Args:
        index (`int`, *optional*, defaults to 0):
            Number of this process among all.
        count (`int`, *optional*, defaults to 1):
            Number of processes, over all shards.
        launched (`int`, *optional*, defaults to 1):
            Number of processes in this shard, started by one launcher; they can wait for one another.
        store (`Store`, *optional*):
            By which they do.
    """

    index: int = 0
    count: int = 1
    launched: int = 1
    store: Store | None = None

    @classmethod
    def join(cls, shard: str | None = None) -> "Processes":
        """
        Join the processes of the launcher that started this one, if one did, and take this one out of their group.

        Args:
            shard (`str`, *optional*):
                `i/n`: this is shard i of n, counted from 1.

        Raises:
            UsageError: if the shard is not of that form.
        """
        number, _, n_shards = (shard or "1/1").partition("/")
        if not (number.isdecimal() and n_shards.isdecimal() and 1 <= int(number) <= int(n_shards)):
            raise UsageError(f"--shard is i/n with i from 1 to n, such as 1/2, not {shard!r}")
        rank, launched, store = 0, int(os.environ.get("WORLD_SIZE", 1)), None
        if launched > 1:
            store, rank, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
            store = PrefixStore("plan", store)
            take_one_device(int(os.environ["LOCAL_RANK"]))
            for name in LAUNCHED:
                os.environ.pop(name, None)
        return cls((int(number) - 1) * launched + rank, int(n_shards) * launched, launched, store)

    @property
    def is_first(self) -> bool:
        """Whether this is the first process of its shard, which writes what is written once."""
        return self.index % self.launched == 0

    def does(self, number: int) -> bool:
        """Whether a run, by its number, is this process's."""
        return number % self.count == self.index

    def tell(self, event: str):
        """Let the other processes of the shard know that something is over."""
        if self.store is not None:
            self.store.set(event, "over")

    def wait_for(self, event: str, number: int):
        """Wait until the process that does run `number` has told of it; not, if it is of another shard."""
        owner = number % self.count
        if self.store is not None and owner // self.launched == self.index // self.launched:
            self.store.wait([event], PATIENCE)

    def wait_for_all(self):
        """Wait until all processes of the shard have come here. The first one is the last to leave: it may hold the
        store."""
        if self.store is None:
            return
        first = self.index - self.index % self.launched
        self.tell(f"arrived {self.index}")
        self.store.wait([f"arrived {first + rank}" for rank in range(self.launched)], PATIENCE)
        self.tell(f"left {self.index}")
        if self.is_first:
            self.store.wait([f"left {first + rank}" for rank in range(self.launched)], PATIENCE)


def take_one_device(local_rank: int):
    """See one of the machine's GPUs only, lest Trainer spread a run over all of them; before CUDA is first used."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not visible:
        visible = [str(number) for number in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[local_rank % len(visible)]
