"""From a prompt to text: sampling, requests, the engine, its kernel."""
