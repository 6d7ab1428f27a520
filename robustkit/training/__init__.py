"""Train one cell or a group of them, and measure the networks."""
