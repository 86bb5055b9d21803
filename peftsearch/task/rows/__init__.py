"""Raw rows from files: formats, encodings, nested columns, and finding the columns by name."""
