"""The draft model of an artefact: another model, or the model's own first layers."""
