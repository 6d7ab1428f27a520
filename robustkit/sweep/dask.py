"""Train on a Dask cluster: its workers train one group of cells at a time, and every row is written here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..checks import InputError
from .device import resolve_device

SECONDS = 30  # for the scheduler to answer


@contextlib.contextmanager
def dask(address: str, device: str = "auto") -> Iterator[dict]:
    """Options of `train_missing.run` for the cluster whose scheduler listens at `address`.

    A worker that dies gives its group to another one. A scheduler accepts strangers, and what it exchanges are
    pickles, which can run any code: it must listen on 127.0.0.1, or speak TLS.
    Raises InputError if dask is not installed, if no scheduler answers or it has no worker, if a worker has more than
    one thread, or if the device is not there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--dask needs the package distributed: pip install distributed") from error
    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--dask is {address!r}, but no Dask scheduler answers there ({error})") from error
    with client:
        threads = client.nthreads()
        if not threads:
            raise InputError(f"the Dask scheduler at {address} has no workers; start one with: dask worker {address}")
        if set(threads.values()) != {1}:
            raise InputError("each Dask worker must have one thread, of which it trains one group: --nthreads 1")
        with client.get_executor(pure=False) as executor:
            device = client.submit(resolve_device, device, pure=False).result()
            yield {"executor": executor, "device": device, "workers": len(threads)}
