"""Narrated videos made from nothing: what is seen, heard and said determine each other."""

from reserve.synthetic.videos import make_videos

__all__ = ["make_videos"]
