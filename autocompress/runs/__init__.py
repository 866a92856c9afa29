"""What is done with a run as a whole: search, refine, validate, repair, track."""
