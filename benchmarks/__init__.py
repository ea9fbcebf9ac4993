"""Speed, memory and quality, measured; results as JSON with the machine and the versions."""
