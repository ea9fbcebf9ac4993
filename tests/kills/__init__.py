"""Killed commands: at whatever file event one dies, the same command goes on to the same bits."""
