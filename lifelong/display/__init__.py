"""What a person sees: live display, tables, pages. The only place but the commands that knows rich."""
