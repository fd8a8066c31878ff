"""VCR, visual commonsense reasoning: choose the answer to a question about a picture, and the reason (SPEC 10.7)."""
