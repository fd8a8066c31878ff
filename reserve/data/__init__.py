"""From video files and transcripts to batches: Segments, Example, MaskedText, PretrainBatch."""
