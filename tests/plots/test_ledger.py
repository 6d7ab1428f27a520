"""The pictures of the ledger show each verdict once, told apart in grey too, and no label overlaps another."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
from matplotlib.colors import to_rgb

from robustkit.checks import InputError
from robustkit.files import figures_folder
from robustkit.ledger import verdicts
from robustkit.plots import ledger as pictures
from robustkit.plots import output, style

MAIN, FLOW = "mnist, raw, cross_entropy, full", "mnist, raw, cross_entropy, flow10, lr_rule=inverse_width"
UNIT, TIMES = "mnist, unit, cross_entropy, flow10", "mnist, raw, cross_entropy, full, milestones=(0.5, 0.7)"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def an_axes(**size):
    figure, axes = style.panels(1, **size)
    return axes[0]


def a_line(name, verdict="reproduced", detail=None, claim="P falls with width"):
    return {"id": name, "claim": claim, "verdict": verdict, "readings_detail": json.dumps(detail) if detail else ""}


def a_ledger(count=14):
    """A claim for each verdict in turn, with as many readings as its number says."""
    words = verdicts.VERDICTS
    lines = []
    for i in range(count):
        names = [MAIN, FLOW, UNIT, TIMES][: i % 5]
        detail = {name: words[(i + k) % len(words)] for k, name in enumerate(names)}
        lines.append(a_line(f"E{i:02}", words[i % len(words)], detail, f"Statement {i} " + "of a paper " * 9))
    return pandas.DataFrame(lines)


def squares(ax):
    return [line for line in ax.lines if line.get_label() == "_square" and line.get_marker() == "s"]


def symbols(ax):
    marks = [(line, line.get_marker()) for line in ax.lines if line.get_label() == "_square"]
    return [line for line, mark in marks if not isinstance(mark, str) or mark not in ("s", "")]


def words_of(ax):
    return [text.get_text() for text in ax.texts]


def boxes(texts):
    return [text.get_window_extent() for text in texts if text.get_text()]


def apart(found):
    return not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])


# ---------------------------------------------------------------------------------------------- the ledger


def test_every_verdict_has_a_colour_and_a_symbol_of_its_own_that_is_seen_on_it():
    assert tuple(pictures.STYLE) == verdicts.VERDICTS
    looks = list(pictures.STYLE.values())
    assert len({to_rgb(colour) for colour, _, _ in looks}) == len({id(s) for _, s, _ in looks}) == len(looks)
    weights = np.array([0.2126, 0.7152, 0.0722])
    for colour, _, ink in looks:  # 3:1 is what WCAG 1.4.11 asks of a symbol, on relative luminance
        light = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ weights
                 for c in (np.array(to_rgb(colour)), np.array(to_rgb(ink)))]  # fmt: skip
        assert (max(light) + 0.05) / (min(light) + 0.05) > 3


def test_the_ledger_has_a_square_and_a_symbol_for_each_verdict_and_records_them():
    table, ax = a_ledger(), an_axes(width=7, height=4)
    pictures.ledger_picture(table, ax)
    readings = [len(json.loads(text or "{}")) for text in table["readings_detail"]]
    expected = sum(max(count, 1) for count in readings)
    assert len(squares(ax)) == len(symbols(ax)) == expected
    (drawn,) = ax.robustkit_tables
    assert len(drawn) == expected and drawn["main"].sum() == len(table)
    assert drawn[drawn["main"]]["verdict"].tolist() == table["verdict"].tolist()
    colours = [to_rgb(square.get_markerfacecolor()) for square in squares(ax)]
    assert colours == [to_rgb(pictures.STYLE[verdict][0]) for verdict in drawn["verdict"]]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(drawn["verdict"])
    others = drawn[(drawn["id"] == "E04") & ~drawn["main"]]
    assert others["reading"].tolist() == [FLOW, UNIT, TIMES]


def test_what_is_drawn_is_saved_as_csv():
    ax = pictures.ledger_picture(a_ledger(), an_axes(width=7, height=4))
    output.save(ax.figure, "ledger", "smoke", None)
    saved = pandas.read_csv(figures_folder("smoke") / "ledger.csv", comment="#")
    assert set(saved["quantity"]) == {"verdict"} and {"id", "reading", "verdict", "main"} <= set(saved)


def test_holds_counts_the_readings_that_were_judged():
    detail = {MAIN: "reproduced", FLOW: "partly", UNIT: "missing", TIMES: "inconclusive", "other": "measured"}
    ax = pictures.ledger_picture(pandas.DataFrame([a_line("E01", detail=detail), a_line("T01")]), an_axes())
    assert "holds in 1 of 2, partly in 1, 1 open" in words_of(ax)
    assert sum(text.startswith("holds") for text in words_of(ax)) == 1


def test_a_reading_with_a_note_is_smaller_and_not_counted():
    line = a_line("E01", detail={MAIN: "partly", FLOW: "reproduced", UNIT: "reproduced"})
    line["readings_notes"] = json.dumps({UNIT: "2 of 5 curves"})
    for draw in (pictures.ledger_picture, pictures.specification_curve):
        ax = draw(pandas.DataFrame([line]), an_axes(width=7))
        main, flow, unit = (square.get_markersize() for square in squares(ax))
        assert unit < 0.7 * flow <= flow <= main
        assert "holds in 1 of 2, partly in 1" in words_of(ax)


def test_a_row_names_its_claim_cut_at_a_word():
    table = a_ledger(3)
    labels = [label.get_text() for label in pictures.ledger_picture(table, an_axes()).get_yticklabels()]
    for label, line in zip(labels, table.itertuples(), strict=True):
        text, name = label.rsplit("   ", 1)
        kept = text.removesuffix(" …")
        assert name == line.id and len(text) <= 64 and line.claim.startswith(kept + " ")


def test_a_dollar_in_a_claim_is_no_formula():
    ax = pictures.ledger_picture(pandas.DataFrame([a_line("E01", claim="costs $5 and $x_")]), an_axes(width=7))
    ax.figure.draw_without_rendering()
    assert r"\$5" in ax.get_yticklabels()[0].get_text()


@pytest.mark.parametrize("count, rules", [(10, 0), (11, 1)])
def test_the_headline_claims_are_set_apart(count, rules):
    ax = pictures.ledger_picture(a_ledger(count), an_axes(width=7, height=4))
    lines = [line for line in ax.lines if line.get_label() != "_square"]
    assert len(lines) == rules
    places = ax.get_yticks()
    for line in lines:
        assert places[9] < line.get_ydata()[0] < places[10]


def test_a_long_ledger_is_read_without_overlaps():
    ax = pictures.ledger_picture(a_ledger(36), an_axes(width=7.2, height=7.2))
    ax.figure.draw_without_rendering()
    labels, counts = boxes(ax.get_yticklabels()), boxes(ax.texts)
    assert apart(labels + counts)
    found = [square.get_window_extent() for square in squares(ax)]
    assert apart(found) and not any(a.overlaps(b) for a in found for b in labels + counts)
    page = ax.figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in labels + counts)


@pytest.mark.parametrize("draw", [pictures.ledger_picture, pictures.specification_curve])
def test_digits_give_grey_squares_and_no_verdict(draw):
    table = a_ledger().assign(verdict=verdicts.DIGITS)
    ax = draw(table, an_axes(width=7, height=4))
    assert len(squares(ax)) and not symbols(ax)
    assert {to_rgb(square.get_markerfacecolor()) for square in squares(ax)} == {to_rgb("0.75")}
    assert not any(word.startswith("holds") for word in words_of(ax))
    assert not set(verdicts.VERDICTS) & {text.get_text() for text in ax.get_legend().get_texts()}
    assert set(ax.robustkit_tables[0]["verdict"]) == {verdicts.DIGITS}


@pytest.mark.parametrize("absent", [{}, {"readings_detail": None}, {"readings_detail": "{}"}])
def test_a_ledger_without_readings_shows_the_main_verdicts(absent):
    table = a_ledger(6).drop(columns="readings_detail").assign(**absent)
    assert len(squares(pictures.ledger_picture(table, an_axes(width=7)))) == 6
    assert not squares(pictures.specification_curve(table, an_axes(width=7)))


@pytest.mark.parametrize(
    "change, word",
    [({"verdict": "true"}, "verdict"), ({"readings_detail": '{"a": "yes"}'}, "'yes'")],
)
@pytest.mark.parametrize("draw", [pictures.ledger_picture, pictures.specification_curve])
def test_a_ledger_that_is_none_is_refused(draw, change, word):
    with pytest.raises(InputError, match=word):
        draw(a_ledger(2).assign(**change), an_axes())


# ---------------------------------------------------------------------------------------------- readings


DETAILS = {
    "E01": {MAIN: "reproduced", FLOW: "partly"},
    "E02": {UNIT: "missing", FLOW: "not reproduced"},
    "E03": {MAIN: "inconclusive", UNIT: "reproduced", TIMES: "reproduced"},
}


def several():
    return pandas.DataFrame(
        [a_line(name, next(iter(v.values())), v) for name, v in DETAILS.items()] + [a_line("T01")]
    )


def columns_of(ax):
    return [re.sub(r"\s", " ", label.get_text()) for label in ax.get_xticklabels()]


def test_the_specification_curve_puts_each_verdict_in_its_readings_column():
    ax = pictures.specification_curve(several(), an_axes(width=7))
    assert columns_of(ax) == [
        *("raw, full", "short schedule, learning rate 1/m", "unit, short schedule", "milestones=(0.5, 0.7)")
    ]
    column = {MAIN: 0, FLOW: 1, UNIT: 2, TIMES: 3}
    expected = {(column[r], row, v) for row, d in enumerate(DETAILS.values()) for r, v in d.items()}
    colours = {to_rgb(colour): verdict for verdict, (colour, _, _) in pictures.STYLE.items()}
    places = list(ax.get_yticks())
    assert expected == {
        (s.get_xdata()[0], places.index(s.get_ydata()[0]), colours[to_rgb(s.get_markerfacecolor())])
        for s in squares(ax)
    }
    assert len(ax.robustkit_tables[0]) == len(expected)


def test_the_specification_curve_shows_the_claims_asked_for_in_their_order():
    ax = pictures.specification_curve(several(), an_axes(width=7), ids=pandas.Series(["E03", "E01"]))
    assert [label.get_text().split()[-1] for label in ax.get_yticklabels()] == ["E03", "E01"]
    with pytest.raises(InputError, match="ids is 'E1'"):
        pictures.specification_curve(several(), an_axes(), ids=["E1"])


def test_readings_of_one_claim_alone_have_names():
    table = pandas.DataFrame([a_line("E01", detail={MAIN: "reproduced"})])
    assert columns_of(pictures.specification_curve(table, an_axes(width=7))) == ["mnist, raw, cross-entropy, full"]
    table = pandas.DataFrame([a_line("E01", detail={TIMES: "reproduced", MAIN: "reproduced"})])
    names = columns_of(pictures.specification_curve(table, an_axes(width=7)))
    assert len(set(names)) == 2 and all(names)


def test_many_long_names_of_readings_do_not_overlap():
    names = [
        f"mnist, unit, squared, 400 epochs at 0.05, n_train={n}, target=parity, batch_size={n}" for n in range(9)
    ]
    detail = dict.fromkeys([MAIN, FLOW, UNIT, *names], "partly")
    table = pandas.DataFrame([a_line(f"E{i:02}", "partly", detail) for i in range(8)])
    ax = pictures.specification_curve(table, an_axes(width=7.2, height=5))
    ax.figure.draw_without_rendering()
    assert apart(boxes(ax.get_xticklabels()) + boxes(ax.get_yticklabels()))
