"""Measurements of the engine through its public door: ``locomo`` for recall, ``speed`` for time, memory and disk."""
