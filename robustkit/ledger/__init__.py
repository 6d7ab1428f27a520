"""The claims of the paper, and what the rows say of each."""
