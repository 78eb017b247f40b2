"""What a person reads: lines, tables, progress bars, pictures."""
