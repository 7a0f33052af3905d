"""What several stages show on a terminal."""
