"""Zero-shot tasks: a question is text with a MASK, and the answer is the option whose encoding is closest to it."""
