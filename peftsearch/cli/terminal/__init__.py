"""The terminal: printing, wrapping, live progress, Ctrl-C."""
