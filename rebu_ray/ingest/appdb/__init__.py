"""The application database: its rows, pulled as they change."""
