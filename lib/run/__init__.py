"""One model's folder, read back."""
