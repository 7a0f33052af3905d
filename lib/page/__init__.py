"""The live page: a text token by token, from a server or in one file with the model inside."""
