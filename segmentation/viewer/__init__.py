"""Scans, infections and progressions in a browser, served here or written as a folder that opens offline."""
