"""Files: written whole, sealed, described as plain data, and built again from what an allowlist covers."""
