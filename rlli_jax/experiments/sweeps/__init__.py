"""Sweeps: a study over a grid, a list or a random draw of its keys, times seeds.

``config`` reads the ``sweep`` block, ``plan`` turns it into runs and groups of one compilation,
``engine`` carries them out (``ray_engine`` on a Ray cluster), ``results`` lays them down as one
labelled dataset. ``devices`` is apart, because it must run before JAX is imported.
"""
