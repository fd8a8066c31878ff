"""The exceptions of the data path: whatever a bad file does to a decoder or parser ends as one of these."""


class BadInput(Exception):
    """A file that cannot be used. Its text is the reason, for a person to read; the caller adds the file's name."""


class TooFewSegments(BadInput):
    """A data set that cannot fill even one example."""
