"""Conversations: messages, the templates that write them as one text, and their tokens."""
