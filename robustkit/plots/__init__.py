"""Drawing and saving, under one name: plots.against draws curves, plots.save writes the figure."""

# ruff: noqa: F401
from ..ledger.rows import matched, named, only, summarise, together
from .cnn_and_resnet import accuracies, figure_6, gaps, over_epochs, scaled_down, table_4, views
from .comparison import comparison
from .curves import against, along_training, mark_transitions, over_time, scatter
from .depth import bounds_in_depth, exact_in_depth, rise_in_depth, table1_in_depth
from .figure_1 import schematic
from .hypotheses import hypothesis_card, shade_outside
from .ledger import ledger_picture, proxy_ratios, specification_curve
from .output import folder, save, save_table
from .style import NAMES, one_legend, panels
from .tables import per_layer, powers, slopes
from .width import bounds, lemma4, lemma4_measured, limit_marks, peak_places, table2_shapes, terms
from .worst_case import average_against_worst
