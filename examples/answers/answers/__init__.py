"""An answer that comes in pieces, as those of language models do."""
