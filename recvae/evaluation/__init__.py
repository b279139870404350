"""Offline ranking evaluation: metrics, significance, comparisons, reports."""
