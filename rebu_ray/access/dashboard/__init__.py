"""The dashboard: pages for people over the interface that everybody else uses, and the way in for a browser."""
