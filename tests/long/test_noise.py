"""2000 ledgers of noise in each family, of which the default suite draws 200: a minute."""

import pytest
from ledger import test_false_positives as families
from ledger import test_verdicts as verdicts

globals().update({name: test for name, test in vars(families).items() if name.startswith("test_")})
test_noise_is_seldom_called_a_finding = (
    verdicts.test_noise_is_called_a_finding_in_less_than_one_ledger_in_twenty  # in a claim's verdict
)


@pytest.fixture(autouse=True)
def many(monkeypatch):
    for module in (families, verdicts):
        monkeypatch.setattr(module, "LEDGERS", 2000)
