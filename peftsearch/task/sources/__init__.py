"""Sources of data: local files, the Hub and demos; their splits, and a task built from them."""
