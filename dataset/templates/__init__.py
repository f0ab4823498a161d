"""Templates: immutable wordings, a file for each kind of question and answer."""
