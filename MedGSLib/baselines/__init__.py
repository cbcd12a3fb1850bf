"""Interpolators that a Slicer user could pick instead of MedGS; they are compared with it and stand in where it would be worse."""
