"""Measuring reconstructions against slices that were really acquired, side by side with what a user could pick instead."""
