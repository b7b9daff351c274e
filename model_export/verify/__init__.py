"""The gates between an exported graph and an artefact.

They run in a process of their own, which never saw torch, through the engine or the encoder that
serves; what they measured is written into the manifest. launch.py starts the process, __main__.py
is the process, exchange.py is what both tell each other. decoder.py and encoder.py have the gates.
"""
