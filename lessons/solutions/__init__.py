"""The exercises' solutions; a test runs them and holds that each passes the line its lesson asks for."""
