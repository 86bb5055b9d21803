"""`peftsearch ls`: tables of spaces, methods, models, tasks, studies, and the design space."""
