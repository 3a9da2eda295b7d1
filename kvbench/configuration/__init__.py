"""From names and values to what a run needs: files are read, checked and built; no Hydra here."""
