"""The commands of ``tune-rh``, one file each; a file is imported only when its command is chosen."""
