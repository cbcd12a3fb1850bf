"""The seam between the Slicer panel and the worker process: job folders, their files, and the process that works on them.

Everything that the panel imports from here needs the standard library and numpy only, and runs on Python 3.9.
"""
