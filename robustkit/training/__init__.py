"""Train one cell or many, and measure what comes out."""
