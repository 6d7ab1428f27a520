"""Train what the store lacks: rows on disk, processes that share the work, and what it will cost."""
