"""The command line: recipes to settings, settings to objects, and what a file may not do on the way."""
