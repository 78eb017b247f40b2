"""Where the batches of an initial training come from, and the run itself."""
