"""Running a search: workers, the trials of a worker, launchers, limits."""
