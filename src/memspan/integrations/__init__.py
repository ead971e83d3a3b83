"""memspan in other frameworks: one module for each, thin."""
