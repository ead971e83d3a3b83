"""Measurements of the engine through its public door: ``recall`` of evidence, ``speed`` for time, memory and disk."""
