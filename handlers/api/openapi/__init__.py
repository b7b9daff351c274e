"""GET /openapi.json: the document, and the shapes that only it needs."""
