"""Parts of scripts that run jobs and gather their results in a file."""
