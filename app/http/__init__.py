"""What every path needs of HTTP: keys, errors, forms, uploads, negotiation."""
