"""Tuning a candidate: the fast loop, distillation, re-estimated statistics."""
