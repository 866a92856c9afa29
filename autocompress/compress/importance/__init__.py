"""Which channels of a group matter least: criteria, one file each, and the scores they give."""
