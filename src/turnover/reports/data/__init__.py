"""What a report shows, as plain data: no sentence, no HTML, no terminal."""
