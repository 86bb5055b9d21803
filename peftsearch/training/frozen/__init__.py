"""States of the frozen layers: computed once for a data set, kept on disk, read by every trial."""
