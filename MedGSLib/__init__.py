"""MedGS: super-resolved volumes, segmentations and meshes from thick or sparse slices with Gaussian splatting."""

__version__ = "0.1.0"
