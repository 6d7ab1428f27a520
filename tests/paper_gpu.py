"""A GPU of paper: CPU tensors that say "cuda" and stand no company on the CPU, and graphs that replay what they saw.

It finds what would go wrong before or beside the kernels: a tensor left on the CPU, a number read or a copy from the
CPU during a capture, a sample that is not a copy, a step too many. It knows nothing of memory, streams and speed.
"""

import contextlib

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from robustkit.training import cuda_graph, group

GPU = torch.device("cuda", 0)
MOVES = ("to", "cpu", "copy_", "__setitem__")
capturing = []  # the capture that is going on, if any


class OnGpu(Tensor):
    """A tensor of the CPU that says it is on the GPU."""

    is_cuda = True
    device = property(lambda self: GPU)


class ParameterOnGpu(OnGpu, nn.Parameter):
    """A parameter that says so."""


def tensors_in(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def device_in(values):
    """The device that a call names, if it does."""
    words = [v for v in values if isinstance(v, (str, torch.device))]
    named = [v for v in words if str(v).partition(":")[0] in ("cpu", "cuda")]
    return torch.device(named[0]) if named else None


class Placement(TorchFunctionMode):
    """Each call to torch: its tensors lie on one device, and what it returns lies there too, or where it says."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name, given = kwargs or {}, getattr(function, "__name__", ""), tensors_in(args, kwargs)
        if name in ("device", "pin_memory"):
            return function(*args) if name == "device" else args[0]
        gpu = [isinstance(t, OnGpu) for t in given]
        there = self.place(name, args, kwargs, gpu)
        self.refuse(name, kwargs, given, gpu, there)
        args, kwargs = tree_map(on_cpu, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            if name in ("to", "cpu") and gpu[0] != there:  # between devices it is a copy
                args = (args[0].clone(memory_format=torch.preserve_format), *args[1:])
            found = function(*args, **kwargs)
            kept = any(found is t for t in given)  # in place
            return found if kept else tree_map(lambda t: labelled(t, there), found)

    def place(self, name, args, kwargs, gpu):
        """Whether the result lies on the GPU."""
        if where := torch.device("cpu") if name == "cpu" else device_in([*args, *kwargs.values()]):
            return where.type == "cuda"
        return gpu[0] if name in ("copy_", "__setitem__") else gpu[-1] if name == "to" else any(gpu)

    def refuse(self, name, kwargs, given, gpu, there):
        """Raise what CUDA raises. A tensor of no axes is a number, which any device takes from the CPU."""
        moves, attribute = name in MOVES, name in ("__get__", "__set__")
        if moves and capturing and len({*gpu, there}) > 1:
            raise RuntimeError(f"{name}: a copy between CPU and GPU is not permitted when stream is capturing")
        if not (moves or attribute) and any(gpu) and any(not g and t.ndim for g, t in zip(gpu, given, strict=True)):
            raise RuntimeError(f"{name}: expected all tensors on the same device, but found cuda:0 and cpu")
        if name == "numpy" and any(gpu):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if there and kwargs.get("generator") is not None:
            raise RuntimeError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")


def labelled(value, there):
    known = not isinstance(value, Tensor) or isinstance(value, OnGpu) == there
    return value if known else value.as_subclass(OnGpu if there else Tensor)


def on_cpu(value):
    return torch.device("cpu") if isinstance(value, (str, torch.device)) and str(value).startswith("cuda") else value


def move_module(module, *args, real=nn.Module.to, **kwargs):
    real(module, *args, **kwargs)
    if device_in([*args, *kwargs.values()]) == torch.device("cuda"):
        for parameter in module.parameters():
            parameter.__class__ = ParameterOnGpu
        for buffer in module.buffers():
            buffer.__class__ = OnGpu
    return module


class Graph:
    """The operations of a capture, on the tensors that they had, without the Python around them."""

    def __init__(self):
        self.calls = []

    def replay(self):
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for function, args, kwargs, results in self.calls:
                for held, new in zip(results, tensors_in(function(*args, **kwargs)), strict=True):
                    if held.data_ptr() != new.data_ptr():
                        held.copy_(new)


class Capture(TorchDispatchMode):
    """Records operations into a graph; at its end every tensor that was there before is as it was."""

    def __init__(self, graph, stream):
        super().__init__()
        self.graph, self.changed = graph, []

    def __enter__(self):
        capturing.append(self)
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function):
            raise RuntimeError("a number is read, which is not permitted when stream is capturing")
        before = [(t, t.detach().clone()) for t in tensors_in(args, kwargs)]
        found = function(*args, **(kwargs or {}))
        self.changed += [(t, was) for t, was in before if not torch.equal(t, was)]
        self.graph.calls.append((function, args, kwargs or {}, tensors_in(found)))
        return found

    def __exit__(self, *error):
        super().__exit__(*error)
        capturing.remove(self)
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for tensor, was in reversed(self.changed):
                tensor.copy_(was)


class Stream:
    def __init__(self, device=0):
        pass

    def wait_stream(self, other):
        pass


@contextlib.contextmanager
def paper_gpu(monkeypatch):
    """Within it, device "cuda" is a GPU of paper."""

    def context(*_):
        return contextlib.nullcontext()

    here = {"is_available": lambda: True, "get_device_name": lambda *_: "a GPU of paper", "current_device": lambda: 0}
    here |= {"current_stream": Stream, "Stream": Stream, "stream": context, "device": context}
    here |= {"CUDAGraph": Graph, "graph": Capture, "synchronize": lambda *_: None}
    here |= {"mem_get_info": lambda *_: (2**37, 2**37), "get_rng_state": lambda *_: torch.get_rng_state()}
    with monkeypatch.context() as patch:
        for name, value in here.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(nn.Module, "to", move_module)
        forget = (cuda_graph._side_stream.cache_clear, group._dataset.cache_clear)
        try:
            with Placement():
                yield
        finally:
            for clear in forget:
                clear()
