"""Where to train: a GPU is used or refused with the reason, and never left idle in silence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch

from ..checks import InputError

DRIVER = Path("/proc/driver/nvidia/version")
ALLOWED = "auto, cpu or a GPU that is there (cuda, cuda:1, ...)"
NEEDED = {11: 450, 12: 525, 13: 580}  # the least driver for CUDA of a major version, on Linux


def resolve_device(device: str = "auto") -> str:
    """ "auto" is the first NVIDIA GPU, or the CPU where there is no NVIDIA driver or CUDA_VISIBLE_DEVICES hides all.

    A GPU must multiply two matrices. ROCm's PyTorch calls its GPUs "cuda" too; they are taken, and were never tried.
    Apple's (MPS) are not supported, since measures are in float64. Raises InputError, with what to install, if the
    device, or on "auto" the GPU that the driver serves, cannot be used.
    """
    if device == "auto":
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        if not torch.cuda.is_available() and (hidden or not driver_version()):
            return "cpu"
        known = torch.device("cuda")
    else:
        try:
            known = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"device is {device!r}, but must be {ALLOWED}") from error
        if known.type not in ("cpu", "cuda"):
            mps = ": Apple's GPUs have no float64" if known.type == "mps" else ""
            raise InputError(f"device is {device!r}, but must be {ALLOWED}{mps}")
        if known.type == "cpu":
            return "cpu"
    try:
        ones = torch.ones(2, 2, device=known)
        if (total := (ones @ ones).sum().item()) != 8:
            raise RuntimeError(f"a product of ones sums to {total}, not 8")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device is {device!r}, but {_reason(str(error).partition(chr(10))[0])}") from error
    return str(known)


def driver_version() -> str | None:
    """The version of the NVIDIA driver of this machine; None if there is none."""
    if DRIVER.exists():
        found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", DRIVER.read_text(encoding="utf-8"))
        return found[1] if found else "unknown"
    if shutil.which("nvidia-smi"):  # as under Windows
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        asked = subprocess.run(command, capture_output=True, encoding="utf-8")
        return asked.stdout.split()[0] if asked.returncode == 0 and asked.stdout.strip() else None
    return None


def _reason(said: str) -> str:
    """Why the GPU cannot be used, and what to do."""
    driver, built = driver_version(), torch.version.cuda
    otherwise = "--device cpu trains on the CPU"
    if torch.cuda.is_available():
        if "no kernel image" in said:
            kernels = f"this PyTorch holds kernels for {', '.join(torch.cuda.get_arch_list())} alone"
            card = "{}, compute capability {}.{}".format(
                torch.cuda.get_device_name(), *torch.cuda.get_device_capability()
            )
            return f"{kernels}, and the GPU is {card}: install a PyTorch built for it; {otherwise}"
        return f"the GPU cannot be used ({said}); {otherwise}"
    if not driver:
        return f"this machine has no NVIDIA driver; {otherwise}"
    if not built:
        return f"this PyTorch is built without CUDA (the NVIDIA driver is {driver}): install one with it; {otherwise}"
    needed = NEEDED.get(int(built.partition(".")[0]))
    major = int(re.match(r"\d+|", driver)[0] or 0)
    if needed and major < needed:
        older = max((cuda for cuda, least in NEEDED.items() if least <= major), default=None)
        instead = f", or install a PyTorch built for CUDA {older}" if older else ""
        return (
            f"the NVIDIA driver is {driver}, and this PyTorch, built for CUDA {built}, needs {needed} or newer: "
            f"update the driver{instead}; {otherwise}"
        )
    return f"CUDA cannot be used under the NVIDIA driver {driver}, which is new enough ({said}); {otherwise}"
