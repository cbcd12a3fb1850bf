"""MRML in and out: what the user has in the scene to a job folder, and a finished job folder to nodes.

Needs ``slicer`` and ``vtk`` but no Qt, so it runs both in the application and with the ``slicer-core`` wheel. Names are camelCase,
as in every Slicer-facing part.
"""
