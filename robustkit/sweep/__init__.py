"""Train the cells that the store lacks: rows on disk, processes that share the work, an estimate of its cost."""
