"""Files and folders that are written atomically and know where they came from."""
