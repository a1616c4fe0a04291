"""The commands of neuromm: one thin module a command."""
