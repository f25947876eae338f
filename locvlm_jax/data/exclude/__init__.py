"""No test image is trained on: which images files are about, and which go."""
