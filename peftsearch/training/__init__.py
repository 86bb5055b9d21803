"""Training one configuration on the shared frozen backbone."""
