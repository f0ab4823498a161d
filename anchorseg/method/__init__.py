"""The paper: tokens, query bank, spatial prior, cycle consistency, heads, and the model that joins them."""
