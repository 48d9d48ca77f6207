"""Recordings in, arrays out: nothing here knows of models or scripts."""
