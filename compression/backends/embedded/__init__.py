"""The small model of this repository: its scenes, its questions, its training, its weights."""
