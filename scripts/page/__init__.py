"""The page of `scripts.app`: limits, visitors, pictures, downloads, layout, server."""
