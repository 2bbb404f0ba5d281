"""Strategies that learn again from rows kept, or generated, of earlier tasks."""
