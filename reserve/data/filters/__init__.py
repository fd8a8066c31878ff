"""Filters of prepared videos, and duplicates among them."""

from reserve.data.filters.duplicates import find_duplicates
from reserve.data.filters.screening import FILTERS, Screening, check_filters, screen_store

__all__ = ["FILTERS", "Screening", "check_filters", "find_duplicates", "screen_store"]
