"""What may be done: services own the transactions, stores never commit."""
