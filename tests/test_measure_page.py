"""docs/measure.md: its examples run, and its numbers are what the project computes."""

import importlib.util
import re
import sys
import types

import pytest
import torch
from scripts import loaded

from robustkit.files import ROOT
from robustkit.sweep import store

PAGE = (ROOT / "docs" / "measure.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]


class Bert(torch.nn.Module):
    """In place of the library where it is missing: token embeddings in, an object with logits out."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = torch.nn.Linear(config.hidden_size, config.num_labels)

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, inputs_embeds):
        return types.SimpleNamespace(logits=self.head(inputs_embeds.tanh().mean(1)))


@pytest.mark.parametrize("code", EXAMPLES, ids=[str(number) for number in range(len(EXAMPLES))])
def test_its_examples_run(code, monkeypatch, capsys, poisoned_seeds):
    poisoned_seeds(0)
    if "transformers" in code and importlib.util.find_spec("transformers") is None:
        stand_in = types.ModuleType("transformers")
        stand_in.BertConfig, stand_in.BertForSequenceClassification = types.SimpleNamespace, Bert
        monkeypatch.setitem(sys.modules, "transformers", stand_in)
    exec(compile(code, "measure.md", "exec"), {})
    assert re.search(r"Estimate\(mean \d|ratio_low", capsys.readouterr().out)


@pytest.fixture(scope="module")
def script():
    return loaded(ROOT / "docs" / "measure.py")


def rows_of(name):
    """The table between two markers of the page, as lists of cells."""
    block = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", PAGE, re.DOTALL)[1]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]


def test_its_references_are_computed(script, monkeypatch):
    """Those in closed form and of the shipped rows to the digit, a random ResNet-18 to rounding."""
    monkeypatch.setattr(store, "SHIPPED", ROOT / "results" / "shipped.jsonl")
    header, _, *rows = rows_of("references")
    exact = [*script.at_initialisation().itertuples(index=False), *script.trained().itertuples(index=False)]
    assert header == ["network", "points", "P/eps", "relative"] and len(rows) == len(exact) + 1
    for row, found in zip(rows, exact, strict=False):
        assert row == [*found[:2], *(f"{value:.3g}" for value in found[2:]), ""][:4]
    (found,) = script.random_resnet18().itertuples(index=False)
    assert rows[-1][:2] == list(found[:2])
    assert [float(value) for value in rows[-1][2:]] == pytest.approx(list(found[2:]), rel=0.01)


def test_its_comparison_is_that_of_the_trained_networks(script):
    header, _, *rows = rows_of("comparison")
    frame = script.comparison()
    assert header == list(frame.columns)
    for row, found in zip(rows, frame.itertuples(index=False), strict=True):
        assert row[0] == found[0]
        assert [float(cell) for cell in row[1:]] == pytest.approx(list(found[1:]), rel=0.05)


def test_its_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert targets and [target for target in targets if not (ROOT / "docs" / target).exists()] == []
    assert "](docs/measure.md)" in (ROOT / "README.md").read_text()
