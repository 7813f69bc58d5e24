"""Sources one file each."""
