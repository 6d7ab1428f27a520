"""Notebooks run, rows shipped, pages written."""
