"""Damaged input: whatever bytes a file holds, the answer is right, or an error in words."""
