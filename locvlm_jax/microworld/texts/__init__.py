"""What is written about the pictures and videos of the micro-world."""
