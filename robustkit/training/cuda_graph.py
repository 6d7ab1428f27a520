"""A step of training as one CUDA graph, since a GPU makes a step in less time than Python takes to ask for it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor


class GraphedStep:
    """`step(*inputs)`, which on a GPU becomes one CUDA graph after three calls; elsewhere it is called as it is.

    The inputs keep their shapes: before a replay they are copied into those of the capture. All else that `step`
    reads and writes stays in its place; a number that it reads from Python is that of the capture until `forget`.
    It must not read a number from the GPU, nor copy anything between CPU and GPU.

    The first three calls are real ones on the stream of the capture: libraries and the optimiser then make what they
    make only once, and nothing need be restored. Where a capture fails, every call is plain, after one warning.
    """

    EARLY = 3

    def __init__(self, step: Callable[..., None]):
        self.step, self.graphs = step, True
        self.forget()

    def forget(self) -> None:
        """Capture the step anew."""
        self.made, self.graph, self.inputs = 0, None, ()

    def __call__(self, *inputs: Tensor) -> None:
        if self.graph:
            for held, given in zip(self.inputs, inputs, strict=True):
                held.copy_(given)
            self.graph.replay()
        elif self.graphs and inputs[0].is_cuda:
            with torch.cuda.device(inputs[0].device):
                self._call_early(inputs)
        else:
            self.step(*inputs)

    def _call_early(self, inputs: tuple[Tensor, ...]) -> None:
        here, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
        side.wait_stream(here)
        with torch.cuda.stream(side):
            self.step(*inputs)
        here.wait_stream(side)
        self.made += 1
        if self.made == self.EARLY:
            held, graph = tuple(x.clone() for x in inputs), torch.cuda.CUDAGraph()
            try:  # within `here`, since a capture that fails would leave us on the side stream
                with torch.cuda.stream(here), torch.cuda.graph(graph, stream=side):
                    self.step(*held)
            except RuntimeError as error:
                self.graphs = False
                reason = str(error).partition("\n")[0]
                warnings.warn(f"no CUDA graph of a step could be made, training is slower ({reason})", stacklevel=2)
            else:
                self.graph, self.inputs = graph, held


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    # One per device, for good: every stream that products run on keeps a workspace of its own.
    return torch.cuda.Stream(device)
