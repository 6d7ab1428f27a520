"""Which device trains: a GPU that cannot be used is refused with the reason, and the CPU never stands in unasked."""

import pytest
import torch

from robustkit.checks import InputError
from robustkit.sweep import device as module
from robustkit.sweep.device import resolve_device

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\n"


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A function that installs a driver of this version, under a PyTorch that sees no GPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(module, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch, "ones", fail("CUDA driver initialization failed"))
    return lambda version, text=CLOSED: (tmp_path / "version").write_text(text.format(version))


def fail(words):
    def raises(*_, **__):
        raise RuntimeError(words)

    return raises


def test_without_a_driver_auto_is_the_cpu(driver):
    assert resolve_device() == resolve_device("cpu") == "cpu"
    with pytest.raises(InputError, match="device is 'cuda', but this machine has no NVIDIA driver; --device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("text", [CLOSED, OPEN])
@pytest.mark.parametrize("asked", ["auto", "cuda", "cuda:1"])
def test_an_old_driver_is_refused_with_its_version_and_the_one_that_is_needed(driver, asked, text):
    """`auto` meant the CPU, for days, without a word."""
    driver("535.104.05", text)
    words = "driver is 535.104.05, and this PyTorch, built for CUDA 13.0, needs 580 or newer: update the driver, or"
    with pytest.raises(
        InputError, match=f"device is '{asked}', .*{words} install a PyTorch built for CUDA 12; --device"
    ):
        resolve_device(asked)


def test_a_driver_older_than_any_has_nothing_to_install_but_another_driver(driver):
    driver("390.157")
    with pytest.raises(InputError, match="390.157, .* needs 580 or newer: update the driver; --device cpu"):
        resolve_device()


def test_a_pytorch_without_cuda_on_a_machine_with_a_driver_is_refused(driver, monkeypatch):
    driver("580.65.06")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match="built without CUDA .the NVIDIA driver is 580.65.06.: install one with it"):
        resolve_device()


def test_what_else_keeps_cuda_from_starting_is_said(driver):
    driver("580.65.06")
    with pytest.raises(InputError, match="580.65.06, which is new enough .CUDA driver initialization failed."):
        resolve_device()


@pytest.mark.parametrize("nothing", ["", "-1"])
def test_who_hides_every_gpu_gets_the_cpu(driver, monkeypatch, nothing):
    driver("535.104.05")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
    assert resolve_device() == "cpu"


def test_a_card_without_kernels_is_found_by_a_product_before_any_run(driver, monkeypatch):
    driver("580.65.06")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "an old card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    monkeypatch.setattr(
        torch, "ones", fail("CUDA error: no kernel image is available for execution on the device\n..")
    )
    words = "kernels for sm_75, sm_90 alone, and the GPU is an old card, compute capability 6.1: install"
    with pytest.raises(InputError, match=f"device is 'auto', .*{words}"):
        resolve_device()


@pytest.mark.parametrize("total", [8, 7])
def test_a_gpu_that_multiplies_is_taken_and_one_that_errs_is_not(driver, monkeypatch, total):
    real = torch.full
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: real(shape, (total / 8) ** 0.5))
    if total == 8:
        assert (resolve_device(), resolve_device("cuda:1")) == ("cuda", "cuda:1")
    else:
        with pytest.raises(InputError, match="a product of ones sums to"):
            resolve_device()


def test_apples_gpus_are_refused_with_the_reason():
    with pytest.raises(InputError, match="device is 'mps', but must be auto, cpu or .*Apple's GPUs have no float64"):
        resolve_device("mps")
