"""Sizes of layers against the modules themselves, and operations against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from robustkit.cell import Cell
from robustkit.networks import ResNet, build

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = [
    {"model": "fcn", "width": 7, "depth": 5},
    *(
        {"model": "cnn", "head": head, "width": 5, "depth": L}
        for head in ("pooling", "flatten")
        for L in (2, 3, 5, 10)
    ),
    *({"model": "resnet", "width": 4, "depth": L} for L in (8, 20)),
]


@pytest.mark.parametrize("fields", MODELS, ids=str)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar100"])
def test_parameters_and_operations_are_those_of_the_network(fields, dataset):
    cell = Cell(dataset=dataset, batch_size=1, n_train=1, epochs=1, **fields)
    net, shape = build(cell), {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar100": (3, 32, 32)}[dataset]
    assert cell.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert [layer.fan_in * layer.fan_out for layer in cell.layers] == [weight.numel() for weight in net.weights]
    with FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, *shape))
    # Two operations a product; two products more backwards. The counter leaves out what is not a product.
    assert cell.flops == 3 * counter.get_total_flops()


@pytest.mark.parametrize(("classes", "count"), [(10, 1_730_714), (100, 1_736_564)])
def test_resnet_110_has_the_parameters_that_its_authors_count(classes, count):
    net = ResNet(d_out=classes)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert Cell(model="resnet", width=16, depth=110, dataset=f"cifar{classes}").parameters == count
    assert sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in net.modules()) == 109
