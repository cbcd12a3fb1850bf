"""Fitting folded Gaussians to slices: configuration, targets, initialisation, losses, density control and the loop."""
