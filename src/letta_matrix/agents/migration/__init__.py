"""Taking over what the original Letta Matrix integration has left: its users and their rooms."""
