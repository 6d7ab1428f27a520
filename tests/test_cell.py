"""One run: what its schedule, its network and its dataset amount to. What is refused, and keys: see faults/."""

import pytest

from robustkit import files
from robustkit.cell import Cell, schedule_name
from robustkit.checks import InputError, check_number
from robustkit.datasets import dataset_info
from robustkit.networks import FCN
from robustkit.sweep import store

SMALL = {"width": 16, "depth": 2}


def cell(**fields):
    return Cell(**(SMALL | fields))


def test_tests_write_nowhere_near_the_users_results():
    for path in (store.local_path(), store.SHIPPED, files.figures_folder("smoke")):
        assert not path.is_relative_to(files.ROOT)


def test_check_number_is_inclusive_at_low_and_high_and_exclusive_at_above():
    assert check_number("n", 1, low=1, high=1, integer=True) == 1
    assert check_number("n", None, optional=True) is None
    with pytest.raises(InputError, match="above 0"):
        check_number("n", 0, above=0)


# ------------------------------------------------------------------------------------------------ what it amounts to


def test_the_papers_schedule():
    """50 epochs of 938 batches, the learning rate falling tenfold after epochs 25, 35, 45 (NeurIPS Sec. 5.1)."""
    paper = Cell(width=16, depth=2, dataset="mnist")
    assert (paper.steps_per_epoch, paper.steps) == (938, 46_900)
    for epoch, before, after in ((25, 1e-3, 1e-4), (35, 1e-4, 1e-5), (45, 1e-5, 1e-6)):
        drop = 938 * epoch
        assert paper.learning_rate(drop - 1) == pytest.approx(before, rel=1e-12)
        assert paper.learning_rate(drop) == pytest.approx(after, rel=1e-12)
    assert paper.learning_rate(0) == 1e-3
    assert paper.learning_rate(46_899) == pytest.approx(1e-6, rel=1e-12)


def test_schedules_have_names():
    assert [schedule_name(*schedule) for schedule in ((50.0, 0.001), (5.0, 0.01))] == ["full", "flow10"]
    assert schedule_name(50, 0.04) == "50 epochs at 0.04"


def test_steps_count_the_last_small_batch_and_are_at_least_one():
    assert cell(n_train=23, batch_size=4).steps_per_epoch == 6
    assert cell(n_train=24, batch_size=4).steps_per_epoch == 6
    assert cell(n_train=23, batch_size=4, epochs=2.5).steps == 15
    assert cell(epochs=1e-9).steps == 1


def test_the_learning_rate_may_fall_with_width():
    assert cell(width=512, lr=0.1, lr_rule="inverse_width").learning_rate(0) == pytest.approx(0.025, rel=1e-15)
    assert cell(width=128, lr=0.1, lr_rule="inverse_width").learning_rate(0) == 0.1


@pytest.mark.parametrize("fields", [{}, {"width": 7, "depth": 5}, {"target": "parity", "loss": "squared"}])
def test_parameters_are_those_of_the_network(fields):
    made = cell(**fields)
    net = FCN(width=made.width, depth=made.depth, d_in=made.d_in, d_out=made.d_out)
    assert made.parameters == sum(weight.numel() for weight in net.parameters())
    # 2 operations a weight and point forwards, 4 backwards, for every point of 50 epochs
    assert made.flops == pytest.approx(6 * made.parameters * 1437 * 50, rel=1e-12)


def test_sizes_come_from_the_dataset(write_npz):
    assert (cell().d_in, cell().d_out, cell().train_points) == (64, 10, 1437)
    assert cell(target="parity", loss="squared").d_out == 1
    assert Cell(width=16, depth=2, dataset="cifar100").d_in == 3072
    own = Cell(width=16, depth=2, dataset=write_npz(), batch_size=4, n_train=10)
    assert (own.d_in, own.d_out, own.train_points) == (3, 3, 10)
    assert dataset_info(own.dataset).n_test == 8
