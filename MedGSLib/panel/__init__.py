"""What the Slicer panel is made of, so that ``MedGS.py`` stays short.

The only part of the library that may import ``qt`` and ``ctk``; like ``scene`` it uses camelCase and runs on Slicer's Python.
Nothing here imports torch or another package that Slicer does not bring along.
"""
