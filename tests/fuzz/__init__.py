"""Forged files: real ones with fields changed and every checksum made right again, so that the
parsers behind the checksums are reached."""
