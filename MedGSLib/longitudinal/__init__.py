"""Comparing time points of one patient: registration, growth, diameters, and how far apart two measurements must be to differ."""
