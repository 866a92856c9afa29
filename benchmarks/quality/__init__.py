"""Parts of `search_quality.py`: what the search's parts are worth."""
