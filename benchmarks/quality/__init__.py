"""Parts of `search_quality.py`: an ablation of the search."""
