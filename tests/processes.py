"""Processes that start at once: children of a server that has torch in memory already."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["robustkit.sweep.train_missing", "sklearn.datasets", "torch._dynamo"])
