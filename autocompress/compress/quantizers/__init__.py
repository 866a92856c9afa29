"""Which values a quantized weight can take: one file per method, listed in `table`."""
