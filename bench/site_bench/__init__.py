"""Simulations of `integration_sites` with planted truth."""
