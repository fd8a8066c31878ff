"""Whether the contrastive span objective and audio help: runs that differ in one thing, and what they score."""
