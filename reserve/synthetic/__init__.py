"""Synthetic narrated videos in which picture, sound and speech determine each other."""

from reserve.synthetic.videos import make_videos

__all__ = ["make_videos"]
