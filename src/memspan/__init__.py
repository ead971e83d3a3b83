"""memspan: infinite memory for all LLMs."""
