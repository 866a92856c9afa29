"""Where a study is kept: SQLite in the run folder, or a database server that drivers share."""
