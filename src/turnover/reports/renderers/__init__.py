"""How a report looks: in the terminal, as one page, as a gallery. Nothing is worded here."""
