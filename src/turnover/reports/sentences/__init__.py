"""What a report says: every sentence is a pure function of what was measured."""
