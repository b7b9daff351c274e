"""What encoders answer: vectors, labels, and the order of documents."""
