"""Trials trained again, to see what the proxy is worth."""
