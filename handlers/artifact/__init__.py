"""The artefact, which model_export writes and handlers/ serves: its manifest and its graphs."""
