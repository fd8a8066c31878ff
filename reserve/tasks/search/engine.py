"""What compares a query with all vectors: faiss, imported where it is needed."""

from __future__ import annotations

import logging
from types import ModuleType


def load_faiss() -> ModuleType:
    """The module faiss. Raises ModuleNotFoundError where it is not installed."""
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which of its builds it loads
    import faiss

    return faiss
