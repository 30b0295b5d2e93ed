"""Connections that more than one adapter needs: kept for ever, and found dead within seconds when they are."""
