"""From files to shards to batches; nothing here needs torch."""
