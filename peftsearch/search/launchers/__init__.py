"""Starting workers: processes of this machine, nodes of a Ray cluster."""
