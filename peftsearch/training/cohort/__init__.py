"""Several configurations trained in shared passes of one backbone."""
