"""Proofs: every gradient against finite differences, every fast version against a naive one."""
