"""The processes of the mesh: a folder is a process."""
