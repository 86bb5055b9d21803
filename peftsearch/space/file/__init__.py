"""The space file: strict YAML, its schema, and the values it may hold."""
