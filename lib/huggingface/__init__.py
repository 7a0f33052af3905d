"""GPT-2 in Hugging Face's layout, in and out."""
