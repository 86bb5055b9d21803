"""Where a task's data come from: local files, the Hub, demos; and their splits."""
