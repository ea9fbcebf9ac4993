"""What makes a release: the lowest versions, the parts list, and the check of wheel and sdist."""
