"""Where things are kept: all the SQL, and the content-addressed files."""
