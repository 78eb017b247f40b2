"""What a GPU that is lent for a quarter of an hour does: packed, rehearsed, resumable."""
