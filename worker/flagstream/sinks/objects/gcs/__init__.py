"""Stores objects in Google Cloud Storage."""
