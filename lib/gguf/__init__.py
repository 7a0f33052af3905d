"""Models in llama.cpp's file format, GGUF, read into runs and written from them."""
