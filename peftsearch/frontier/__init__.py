"""The Pareto frontier of a study, its hypervolume, and choosing a point of it."""
