"""How fast the mesh serves: cold starts, the way of a token, the dispatch of a request."""
