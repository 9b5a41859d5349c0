"""Stage to stage: each file is one function with the name of the file."""
