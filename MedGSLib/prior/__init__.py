"""What is known between the acquired slices before any Gaussian is fitted: dense images and signed distances, learnt per patient."""
