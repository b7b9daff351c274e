"""Where the model's files come from: the image, a mount, or a URI from which they are fetched."""
