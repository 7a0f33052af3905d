"""The depth-and-width sweep."""
