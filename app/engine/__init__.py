"""The device: scans queue up, states are kept ready, slices share batches."""
