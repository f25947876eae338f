"""Pictures and videos as files and as frames."""
