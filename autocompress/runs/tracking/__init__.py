"""Trials as runs of other tools that people look at experiments with."""
