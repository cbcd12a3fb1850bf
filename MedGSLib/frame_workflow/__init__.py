"""The frame-folder workflow of the MedGS authors' tool: train on a folder of frames, render frames in between, mesh the masks."""
