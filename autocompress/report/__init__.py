"""A run as tables, figures and one offline page: views, rebuilt from the study at any time."""
