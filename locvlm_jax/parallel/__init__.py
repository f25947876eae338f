"""Several devices and processes: the mesh, shardings, how hosts agree."""
