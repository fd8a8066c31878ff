"""TVQA: questions about a minute of a television series, with sound or with subtitles (SPEC 10.8)."""
