"""The paths of the API, a file for each resource; none knows another."""
