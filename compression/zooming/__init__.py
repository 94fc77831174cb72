"""Looking closer instead of dropping: boxes that a model points at, and what is made of them."""
