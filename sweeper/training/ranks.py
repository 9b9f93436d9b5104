"""The workers of one trial in torch.distributed: joined once per process, used by one trial after another."""

import dataclasses
import datetime
import fcntl
import os
import socket
import struct
from typing import Any

import torch
import torch.distributed as dist

_store: Any = dist.TCPStore  # type: ignore[attr-defined]  # public, and documented, but not in torch's list of names
# Rank 0 may write a checkpoint to an object store, or wait for a judgement, while the others wait for it at the next
# step boundary. A dead rank is noticed by its closed connection, not by this.
_CONTROL_S = datetime.timedelta(hours=6)
_COMPUTE_S = datetime.timedelta(minutes=30)
_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where the ranks of one trial find each other."""

    host: str  # of rank 0, as other nodes reach it
    port: int
    size: int


class TorchRanks:
    """One rank's view of the others.

    What they agree on goes over gloo on the host, so that it never waits for the GPUs; what they compute goes over
    NCCL where they train on GPUs.
    """

    def __init__(self) -> None:
        is_gloo = dist.get_backend() == "gloo"
        self._control: dist.ProcessGroup | None
        self._control = dist.group.WORLD if is_gloo else dist.new_group(backend="gloo", timeout=_CONTROL_S)

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def size(self) -> int:
        return dist.get_world_size()

    def total(self, values: list[int]) -> list[int]:
        sums = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(sums, group=self._control)
        return [int(value) for value in sums]

    def of_first(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def gathered(self, value: Any) -> list[Any] | None:
        values: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self._control)
        return values

    @staticmethod
    def summed(tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all ranks, where it was computed."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total


def open_meeting(host: str, size: int) -> tuple[Meeting, Any]:
    """Listen on a free port for the other ranks. The store has to be kept for as long as they train together."""
    store = _store(host, 0, size, is_master=True, wait_for_workers=False, timeout=_COMPUTE_S)
    return Meeting(host=host, port=store.port, size=size), store


def join(
    meeting: Meeting, rank: int, *, address: str, store: Any = None, on_gpu: bool | None = None
) -> TorchRanks:
    """Join the other ranks; returns when all have.

    Args:
        meeting: Where.
        rank: Of this process.
        address: This machine's, by which the other ranks reach it.
        store: What rank 0 has opened.
        on_gpu: Whether they compute on GPUs; None: where there is one.
    """
    interface = interface_of(address)
    if interface is not None:
        # Gloo goes by the host's name, which many systems resolve to 127.0.1.1: no other node finds it there.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    # What accelerate reads. Every worker has its own GPU, and sees no other one.
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(meeting.size), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1",
        MASTER_ADDR=meeting.host, MASTER_PORT=str(meeting.port),
    )  # fmt: skip
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(torch.get_num_threads())
    )  # else accelerate sets its own number
    if store is None:
        store = _store(meeting.host, meeting.port, meeting.size, is_master=False, timeout=_COMPUTE_S)
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    if on_gpu:
        torch.cuda.set_device(0)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=meeting.size,
        timeout=_COMPUTE_S if on_gpu else _CONTROL_S,
    )  # fmt: skip
    return TorchRanks()


def interface_of(address: str) -> str | None:
    """Return the network interface that has an IPv4 address; None where there is none, or the system is not Linux."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
