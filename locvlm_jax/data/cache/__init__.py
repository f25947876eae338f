"""What is read once, on disk for other processes and later starts."""
