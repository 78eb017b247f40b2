"""Odd scans, turned heads and wrong labels, tried on scans whose right answer is known."""
