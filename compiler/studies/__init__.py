"""Studies: many quantizations or runs of one model, and what they show together."""
