"""Files in and out: volumes, label maps, frame folders, dense results and meshes. LPS in files, RAS everywhere else."""
