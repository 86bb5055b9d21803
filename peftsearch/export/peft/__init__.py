"""Export to peft's format: what it can express, its files and its card."""
