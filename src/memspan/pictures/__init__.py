"""Pictures of a memory: each module draws one, as a page to look at offline, an SVG or a PNG."""
