"""Finds videos and reads what lies beside them: transcripts, metadata, random text."""
