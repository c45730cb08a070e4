"""What makes the generated files of this repository. Never installed, never imported by the package."""
