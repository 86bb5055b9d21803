"""Export to peft's format: supported configurations, files and model card."""
