"""The Pareto frontier of a study, its hypervolume, and choosing one of its points."""
