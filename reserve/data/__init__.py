"""From video files and transcripts to segments on disk, and the order of batches. Knows no task and no model."""
