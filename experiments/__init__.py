"""Studies that a reader can repeat: the paper's table 2 on simulated scanners."""
