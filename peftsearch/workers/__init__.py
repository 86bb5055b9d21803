"""Running a search: workers, their trials, launchers and limits."""
