"""What the package counts, measures and notes of its connections."""
