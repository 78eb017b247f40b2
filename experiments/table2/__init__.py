"""Table 2 of Karani et al., MICCAI 2018, on simulated scanners."""
