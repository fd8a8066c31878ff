"""A page in the browser to ask and search one's own videos: `reserve serve`. docs/serving.md shows it."""

from __future__ import annotations
