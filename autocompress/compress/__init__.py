"""Techniques: pure tensor maths, module surgery, and the one order in `pipeline`."""
