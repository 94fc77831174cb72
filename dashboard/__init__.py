"""The page: what visitors see, and the server that answers it."""
