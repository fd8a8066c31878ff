"""Finds moments of videos by text or sound: `build_index` encodes videos, `MomentIndex` searches them."""

from reserve.tasks.search.build import IndexReport, build_index
from reserve.tasks.search.index import Moment, MomentIndex

__all__ = ["IndexReport", "Moment", "MomentIndex", "build_index"]
