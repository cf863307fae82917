"""Ways in for people and programs: protocol alone, over the same operations."""
