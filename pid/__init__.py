"""Partial information decomposition of what picture and question tell about an answer; its measures come later."""

__all__: list[str] = []
